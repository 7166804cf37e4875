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

/** Clients are divided into so many equal parts, the smallest share */
#define BUCKETS 100

typedef struct private_rmobike_redirect_t private_rmobike_redirect_t;
typedef struct answer_t answer_t;
typedef struct share_t share_t;

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
 * So many percent of the clients go to this gateway
 */
struct share_t {
	identification_t *gateway;
	uint32_t percent;
};

/**
 * The answer to clients
 */
struct answer_t {

	/** where to, share_t, in the order of the buckets that they take after
	 * those of the clients that are kept */
	linked_list_t *shares;

	/** buckets of clients that are kept, the first ones */
	uint32_t keep;

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
 * Destroy a share
 */
static void share_destroy(share_t *share)
{
	share->gateway->destroy(share->gateway);
	free(share);
}

/**
 * Destroy an answer
 */
static void answer_destroy(answer_t *answer)
{
	if (answer)
	{
		answer->shares->destroy_function(answer->shares, (void*)share_destroy);
		answer->networks->destroy_offset(answer->networks,
										 offsetof(traffic_selector_t, destroy));
		answer->identities->destroy_offset(answer->identities,
										   offsetof(identification_t, destroy));
		free(answer);
	}
}

/**
 * Get the bucket of a client, the same on every gateway: the first eight bytes
 * of the SHA-256 of what names it, in network order, modulo the buckets
 *
 * @return				FALSE if there is no SHA-256 here
 */
static bool get_bucket(chunk_t name, uint32_t *bucket)
{
	uint8_t digest[HASH_SIZE_SHA256];
	hasher_t *hasher;
	bool good;

	hasher = lib->crypto->create_hasher(lib->crypto, HASH_SHA256);
	good = hasher && hasher->get_hash(hasher, name, digest);
	DESTROY_IF(hasher);
	*bucket = good ? untoh64(digest) % BUCKETS : 0;
	return good;
}

/**
 * Get what names a client: its identity once it is known
 */
static chunk_t name_of(host_t *address, identification_t *identity)
{
	return identity ? identity->get_encoding(identity)
					: address->get_address(address);
}

/**
 * Get the gateway that a bucket is redirected to, NULL if it is kept
 */
static identification_t *gateway_of(answer_t *answer, uint32_t bucket)
{
	identification_t *gateway = NULL;
	enumerator_t *enumerator;
	uint32_t end = answer->keep;
	share_t *share;

	if (bucket < end)
	{
		return NULL;
	}
	enumerator = answer->shares->create_enumerator(answer->shares);
	while (!gateway && enumerator->enumerate(enumerator, &share))
	{
		end += share->percent;
		if (bucket < end)
		{
			gateway = share->gateway;
		}
	}
	enumerator->destroy(enumerator);
	return gateway;
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
	identification_t *identity = NULL, *found;
	answer_t *answer;
	host_t *address;
	uint32_t bucket;
	bool redirected;

	*gateway = NULL;
	address = ike_sa->get_other_host(ike_sa);
	if (phase == PHASE_AUTH)
	{
		identity = ike_sa->get_other_eap_id(ike_sa);
	}
	if (!get_bucket(name_of(address, identity), &bucket))
	{
		return FALSE;
	}
	redirected = was_redirected(this, ike_sa);

	this->mutex->lock(this->mutex);
	answer = this->answers[phase];
	if (answer && (answer->again || !redirected) &&
		!is_excepted(answer, address, identity))
	{
		found = gateway_of(answer, bucket);
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

/**
 * Add a share to an answer, FALSE if it cannot be one or does not fit
 */
static bool add_share(answer_t *answer, char *gateway, char *percent)
{
	identification_t *id;
	uint32_t number;
	share_t *share;

	if (answer->shares->get_count(answer->shares) >= BUCKETS ||
		!rmobike_parse_number(percent, 0, answer->keep, &number))
	{
		return FALSE;
	}
	id = parse_gateway(gateway);
	if (!id)
	{
		return FALSE;
	}
	INIT(share,
		.gateway = id,
		.percent = number,
	);
	answer->shares->insert_last(answer->shares, share);
	answer->keep -= number;
	return TRUE;
}

/**
 * Add a share given as PERCENT:GATEWAY, of the list "gateways" of a request
 */
CALLBACK(parse_share, bool,
	answer_t *answer, vici_message_t *message, char *name, chunk_t value)
{
	char str[UINT8_MAX + 8] = "", *gateway;

	if (!streq(name, "gateways"))
	{
		return TRUE;
	}
	if (value.len >= sizeof(str))
	{
		return FALSE;
	}
	memcpy(str, value.ptr, value.len);
	gateway = strchr(str, ':');
	if (!gateway)
	{
		return FALSE;
	}
	*gateway++ = '\0';
	return add_share(answer, gateway, str);
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

/**
 * Parse an answer, return the name of the argument that is wrong
 */
static char *parse_answer(vici_message_t *request, answer_t *answer)
{
	char *gateway = request->get_str(request, NULL, "gateway");

	if (gateway && !add_share(answer, gateway,
							  request->get_str(request, "100", "percent")))
	{
		return "gateway or percent";
	}
	if (!request->parse(request, NULL, NULL, NULL, parse_share, answer) ||
		!answer->shares->get_count(answer->shares))
	{
		return "gateways";
	}
	if (!request->parse(request, NULL, NULL, NULL, add_exception, answer))
	{
		return "except";
	}
	return NULL;
}

CALLBACK(set_redirect, vici_message_t*,
	private_rmobike_redirect_t *this, char *name, u_int client,
	vici_message_t *request)
{
	answer_t *answer;
	phase_t phase;
	uint32_t bucket;
	char *wrong;

	if (!get_bucket(chunk_empty, &bucket))
	{
		return this->control->refuse(this->control, "no-sha256",
						"charon has no SHA-256 to divide the clients with");
	}
	INIT(answer,
		.shares = linked_list_create(),
		.keep = BUCKETS,
		.again = request->get_bool(request, FALSE, "again"),
		.networks = linked_list_create(),
		.identities = linked_list_create(),
	);
	wrong = parse_phase(request, &phase) ? parse_answer(request, answer)
										 : "exchange";
	if (wrong)
	{
		answer_destroy(answer);
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
	answer_t *answer;
	uint32_t bucket;
	char *reason;

	if (!get_bucket(name_of(address, identity), &bucket))
	{
		return this->control->refuse(this->control, "no-sha256",
						"charon has no SHA-256 to divide the clients with");
	}
	this->mutex->lock(this->mutex);
	answer = this->answers[phase];
	if (!answer)
	{
		reason = "off";
	}
	else if (is_excepted(answer, address, identity))
	{
		reason = "excepted";
	}
	else
	{
		gateway = gateway_of(answer, bucket);
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
	control->add_command(control, "explain-redirect", explain_redirect, this);

	return &this->public;
}
