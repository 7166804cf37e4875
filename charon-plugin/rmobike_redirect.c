/*
 * Copyright (C) 2026 The mobikectl authors
 *
 * This program is free software; you can redistribute it and/or modify it
 * under the terms of the GNU General Public License as published by the
 * Free Software Foundation; either version 2 of the License, or (at your
 * option) any later version.  See <http://www.fsf.org/copyleft/gpl.txt>.
 *
 * This program is distributed in the hope that it will be useful, but
 * WITHOUT ANY WARRANTY; without even the implied warranty of MERCHANTABILITY
 * or FITNESS FOR A PARTICULAR PURPOSE.  See the GNU General Public License
 * for more details.
 */

#include "rmobike_redirect.h"

#include <daemon.h>
#include <threading/mutex.h>

#include "rmobike_answer.h"

typedef struct private_rmobike_redirect_t private_rmobike_redirect_t;

/**
 * Phases a client can be redirected in
 */
typedef enum {
	PHASE_INIT,
	PHASE_AUTH,
	PHASE_COUNT,
} phase_t;

static char *phase_names[] = {
	[PHASE_INIT] = "IKE_SA_INIT",
	[PHASE_AUTH] = "IKE_AUTH",
};

/**
 * Private data of an rmobike_redirect_t object.
 */
struct private_rmobike_redirect_t {

	/**
	 * Public interface
	 */
	rmobike_redirect_t public;

	/**
	 * Socket, for commands and events
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;

	/**
	 * Current answers
	 */
	rmobike_answer_t *answers[PHASE_COUNT];

	/**
	 * Leaf mutex for the answers
	 */
	mutex_t *mutex;
};

/**
 * Check if a peer was redirected to us
 */
static bool was_redirected(private_rmobike_redirect_t *this, ike_sa_t *ike_sa)
{
	rmobike_peer_t *peer;
	bool redirected = FALSE;

	peer = this->peers->lock(this->peers, ike_sa->get_unique_id(ike_sa), FALSE);
	if (peer)
	{
		redirected = peer->redirected;
		this->peers->unlock(this->peers);
	}
	return redirected;
}

/**
 * Raise an event about a client that is redirected
 */
static void raise_redirected(private_rmobike_redirect_t *this,
							 ike_sa_t *ike_sa, phase_t phase,
							 identification_t *identity,
							 identification_t *gateway)
{
	vici_builder_t *builder;

	builder = this->control->event(this->control,
								   ike_sa->get_unique_id(ike_sa));
	builder->add_kv(builder, "exchange", "%s", phase_names[phase]);
	builder->add_kv(builder, "remote", "%H", ike_sa->get_other_host(ike_sa));
	if (identity)
	{
		builder->add_kv(builder, "remote-id", "%Y", identity);
	}
	builder->add_kv(builder, "gateway", "%Y", gateway);
	this->control->raise(this->control, "redirected", 0, builder);
}

/**
 * Get the answer of a phase while it counts, NULL if there is none.  To be
 * called with the mutex held.
 */
static rmobike_answer_t *current(private_rmobike_redirect_t *this,
								 phase_t phase)
{
	rmobike_answer_t *answer = this->answers[phase];

	if (answer && answer->until && answer->until <= time_monotonic(NULL))
	{
		return NULL;
	}
	return answer;
}

/**
 * Decide about a client.  The same client always gets the same answer, as
 * this may be called several times for it.
 */
static bool decide(private_rmobike_redirect_t *this, ike_sa_t *ike_sa,
				   phase_t phase, identification_t **gateway)
{
	identification_t *identity = NULL, *found;
	rmobike_answer_t *answer;
	host_t *address;
	uint32_t bucket;
	bool redirected;

	*gateway = NULL;
	address = ike_sa->get_other_host(ike_sa);
	if (phase == PHASE_AUTH)
	{
		identity = ike_sa->get_other_eap_id(ike_sa);
	}
	if (!rmobike_answer_bucket(address, identity, &bucket))
	{
		return FALSE;
	}
	redirected = was_redirected(this, ike_sa);

	this->mutex->lock(this->mutex);
	answer = current(this, phase);
	if (answer && (answer->again || !redirected) &&
		!rmobike_answer_excepts(answer, address, identity))
	{
		found = rmobike_answer_gateway(answer, bucket);
		*gateway = found ? found->clone(found) : NULL;
	}
	this->mutex->unlock(this->mutex);

	if (*gateway)
	{
		raise_redirected(this, ike_sa, phase, identity, *gateway);
	}
	return *gateway != NULL;
}

METHOD(redirect_provider_t, redirect_on_init, bool,
	private_rmobike_redirect_t *this, ike_sa_t *ike_sa,
	identification_t **gateway)
{
	return decide(this, ike_sa, PHASE_INIT, gateway);
}

METHOD(redirect_provider_t, redirect_on_auth, bool,
	private_rmobike_redirect_t *this, ike_sa_t *ike_sa,
	identification_t **gateway)
{
	return decide(this, ike_sa, PHASE_AUTH, gateway);
}

/**
 * Parse the name of a phase
 */
static bool parse_phase(vici_message_t *request, phase_t *phase)
{
	char *str = request->get_str(request, "", "exchange");

	for (*phase = 0; *phase < PHASE_COUNT; (*phase)++)
	{
		if (streq(str, phase_names[*phase]))
		{
			return TRUE;
		}
	}
	return FALSE;
}

/**
 * Put an answer in place
 */
static void replace(private_rmobike_redirect_t *this, phase_t phase,
					rmobike_answer_t *answer)
{
	rmobike_answer_t *old;

	this->mutex->lock(this->mutex);
	old = this->answers[phase];
	this->answers[phase] = answer;
	this->mutex->unlock(this->mutex);
	rmobike_answer_destroy(old);
}

/**
 * Check if clients can be divided here
 */
static bool has_sha256()
{
	hasher_t *hasher;

	hasher = lib->crypto->create_hasher(lib->crypto, HASH_SHA256);
	if (!hasher)
	{
		return FALSE;
	}
	hasher->destroy(hasher);
	return TRUE;
}

CALLBACK(set_redirect, vici_message_t*,
	private_rmobike_redirect_t *this, char *name, u_int client,
	vici_message_t *request)
{
	rmobike_answer_t *answer = NULL;
	char *wrong = "exchange";
	phase_t phase;

	if (!has_sha256())
	{
		return this->control->refuse(this->control, "no-sha256",
						"charon has no SHA-256 to divide the clients with");
	}
	if (parse_phase(request, &phase))
	{
		answer = rmobike_answer_parse(request, &wrong);
	}
	if (!answer)
	{
		return this->control->refuse(this->control, "bad-request",
									 "the value of %s is not valid", wrong);
	}
	replace(this, phase, answer);
	return this->control->done(this->control, NULL);
}

/**
 * Tell what a client would be answered
 */
static vici_message_t *explain(private_rmobike_redirect_t *this, phase_t phase,
							   host_t *address, identification_t *identity)
{
	identification_t *gateway = NULL;
	vici_builder_t *builder;
	rmobike_answer_t *answer;
	uint32_t bucket;
	char *reason;

	if (!rmobike_answer_bucket(address, identity, &bucket))
	{
		return this->control->refuse(this->control, "no-sha256",
						"charon has no SHA-256 to divide the clients with");
	}
	this->mutex->lock(this->mutex);
	answer = current(this, phase);
	if (!answer)
	{
		reason = "off";
	}
	else if (rmobike_answer_excepts(answer, address, identity))
	{
		reason = "excepted";
	}
	else
	{
		gateway = rmobike_answer_gateway(answer, bucket);
		gateway = gateway ? gateway->clone(gateway) : NULL;
		reason = gateway ? "redirected" : "kept";
	}
	this->mutex->unlock(this->mutex);

	builder = this->control->builder(this->control);
	builder->add_kv(builder, "bucket", "%u", bucket);
	builder->add_kv(builder, "answer", "%s", reason);
	if (gateway)
	{
		builder->add_kv(builder, "gateway", "%Y", gateway);
		gateway->destroy(gateway);
	}
	return this->control->done(this->control, builder);
}

CALLBACK(explain_redirect, vici_message_t*,
	private_rmobike_redirect_t *this, char *name, u_int client,
	vici_message_t *request)
{
	char str[UINT8_MAX + 1] = "";
	identification_t *identity = NULL;
	vici_message_t *response;
	host_t *address;
	phase_t phase;
	chunk_t given;

	address = rmobike_parse_address(request->get_str(request, NULL, "address"));
	/* may hold more than what vici takes for a string */
	given = request->get_value(request, chunk_empty, "identity");
	if (!parse_phase(request, &phase) || !address ||
		given.len >= sizeof(str) ||
		(phase == PHASE_AUTH) != (given.len != 0))
	{
		DESTROY_IF(address);
		return this->control->refuse(this->control, "bad-request",
						"exchange and address are needed, for IKE_AUTH the "
						"identity too");
	}
	if (given.len)
	{
		memcpy(str, given.ptr, given.len);
		identity = identification_create_from_string(str);
	}
	response = explain(this, phase, address, identity);
	DESTROY_IF(identity);
	address->destroy(address);
	return response;
}

CALLBACK(clear_redirect, vici_message_t*,
	private_rmobike_redirect_t *this, char *name, u_int client,
	vici_message_t *request)
{
	phase_t phase;

	if (!parse_phase(request, &phase))
	{
		return this->control->refuse(this->control, "bad-request",
									 "the value of exchange is not valid");
	}
	replace(this, phase, NULL);
	return this->control->done(this->control, NULL);
}

METHOD(rmobike_redirect_t, destroy, void,
	private_rmobike_redirect_t *this)
{
	phase_t phase;

	for (phase = 0; phase < PHASE_COUNT; phase++)
	{
		rmobike_answer_destroy(this->answers[phase]);
	}
	this->mutex->destroy(this->mutex);
	free(this);
}

/*
 * Described in header
 */
rmobike_redirect_t *rmobike_redirect_create(rmobike_control_t *control,
											rmobike_peers_t *peers)
{
	private_rmobike_redirect_t *this;

	INIT(this,
		.public = {
			.provider = {
				.redirect_on_init = _redirect_on_init,
				.redirect_on_auth = _redirect_on_auth,
			},
			.destroy = _destroy,
		},
		.control = control,
		.peers = peers,
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);

	control->add_event(control, "redirected");
	control->add_command(control, "set-redirect", set_redirect, this);
	control->add_command(control, "clear-redirect", clear_redirect, this);
	control->add_command(control, "explain-redirect", explain_redirect, this);

	return &this->public;
}
