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

#define MAX_EXCEPTIONS 1024

typedef struct private_rmobike_redirect_t private_rmobike_redirect_t;
typedef struct answer_t answer_t;

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
 * The answer to clients
 */
struct answer_t {

	/** where to, NULL to redirect nobody */
	identification_t *gateway;

	/** share of the clients that are redirected */
	uint32_t percent;

	/** redirect clients again that were redirected to us */
	bool again;

	/** networks that are not redirected, traffic_selector_t */
	linked_list_t *networks;

	/** identities that are not redirected, identification_t */
	linked_list_t *identities;
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
	answer_t *answers[PHASE_COUNT];

	/**
	 * Leaf mutex for the answers
	 */
	mutex_t *mutex;
};

/**
 * Destroy an answer
 */
static void answer_destroy(answer_t *answer)
{
	if (answer)
	{
		DESTROY_IF(answer->gateway);
		answer->networks->destroy_offset(answer->networks,
										 offsetof(traffic_selector_t, destroy));
		answer->identities->destroy_offset(answer->identities,
										   offsetof(identification_t, destroy));
		free(answer);
	}
}

/**
 * Check if a client is among the exceptions
 */
static bool is_excepted(answer_t *answer, host_t *address,
						identification_t *identity)
{
	enumerator_t *enumerator;
	identification_t *id;
	traffic_selector_t *ts;
	bool found = FALSE;

	enumerator = answer->networks->create_enumerator(answer->networks);
	while (!found && enumerator->enumerate(enumerator, &ts))
	{
		found = ts->includes(ts, address);
	}
	enumerator->destroy(enumerator);
	enumerator = answer->identities->create_enumerator(answer->identities);
	while (identity && !found && enumerator->enumerate(enumerator, &id))
	{
		found = identity->matches(identity, id) != ID_MATCH_NONE;
	}
	enumerator->destroy(enumerator);
	return found;
}

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
 * Decide about a client.  The same client always gets the same answer, as
 * this may be called several times for it.
 */
static bool decide(private_rmobike_redirect_t *this, ike_sa_t *ike_sa,
				   phase_t phase, identification_t **gateway)
{
	identification_t *identity = NULL;
	answer_t *answer;
	host_t *address;
	bool redirected;
	chunk_t key;

	address = ike_sa->get_other_host(ike_sa);
	key = address->get_address(address);
	if (phase == PHASE_AUTH)
	{
		identity = ike_sa->get_other_eap_id(ike_sa);
		key = identity->get_encoding(identity);
	}
	redirected = was_redirected(this, ike_sa);

	*gateway = NULL;
	this->mutex->lock(this->mutex);
	answer = this->answers[phase];
	if (answer && (answer->again || !redirected) &&
		chunk_hash_static(key) % 100 < answer->percent &&
		!is_excepted(answer, address, identity))
	{
		*gateway = answer->gateway->clone(answer->gateway);
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
 * Parse a gateway, NULL if it cannot be one
 */
static identification_t *parse_gateway(char *str)
{
	identification_t *id;

	if (!str || !*str || strlen(str) > UINT8_MAX)
	{
		return NULL;
	}
	id = identification_create_from_string(str);
	switch (id->get_type(id))
	{
		case ID_IPV4_ADDR:
		case ID_IPV6_ADDR:
		case ID_FQDN:
			return id;
		default:
			id->destroy(id);
			return NULL;
	}
}

CALLBACK(add_exception, bool,
	answer_t *answer, vici_message_t *message, char *name, chunk_t value)
{
	traffic_selector_t *ts;
	identification_t *id;
	char str[256] = "";

	if (!streq(name, "except"))
	{
		return TRUE;
	}
	if (!value.len || value.len >= sizeof(str) ||
		answer->networks->get_count(answer->networks) +
		answer->identities->get_count(answer->identities) >= MAX_EXCEPTIONS)
	{
		return FALSE;
	}
	memcpy(str, value.ptr, value.len);
	ts = rmobike_parse_network(str);
	if (ts)
	{
		answer->networks->insert_last(answer->networks, ts);
	}
	else
	{
		id = identification_create_from_string(str);
		answer->identities->insert_last(answer->identities, id);
	}
	return TRUE;
}

/**
 * Put an answer in place
 */
static void replace(private_rmobike_redirect_t *this, phase_t phase,
					answer_t *answer)
{
	answer_t *old;

	this->mutex->lock(this->mutex);
	old = this->answers[phase];
	this->answers[phase] = answer;
	this->mutex->unlock(this->mutex);
	answer_destroy(old);
}

CALLBACK(set_redirect, vici_message_t*,
	private_rmobike_redirect_t *this, char *name, u_int client,
	vici_message_t *request)
{
	answer_t *answer;
	phase_t phase;
	char *wrong = NULL;

	INIT(answer,
		.gateway = parse_gateway(request->get_str(request, NULL, "gateway")),
		.again = request->get_bool(request, FALSE, "again"),
		.networks = linked_list_create(),
		.identities = linked_list_create(),
	);
	if (!parse_phase(request, &phase))
	{
		wrong = "exchange";
	}
	else if (!answer->gateway)
	{
		wrong = "gateway";
	}
	else if (!rmobike_parse_number(request->get_str(request, "100", "percent"),
								   0, 100, &answer->percent))
	{
		wrong = "percent";
	}
	else if (!request->parse(request, NULL, NULL, NULL, add_exception, answer))
	{
		wrong = "except";
	}
	if (wrong)
	{
		answer_destroy(answer);
		return this->control->refuse(this->control, "bad-request",
									 "the value of %s is not valid", wrong);
	}
	replace(this, phase, answer);
	return this->control->done(this->control, NULL);
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
		answer_destroy(this->answers[phase]);
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

	return &this->public;
}
