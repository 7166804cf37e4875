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

#include "rmobike_answer.h"

#include "rmobike_control.h"

#define MAX_EXCEPTIONS 1024

/** Longest time that an answer may be given for, in seconds: a day */
#define MAX_LIFETIME 86400

/** Clients are divided into so many equal parts, the smallest share */
#define BUCKETS 100

typedef struct share_t share_t;

/**
 * So many percent of the clients go to this gateway
 */
struct share_t {
	identification_t *gateway;
	uint32_t percent;
};

/**
 * Destroy a share
 */
static void share_destroy(share_t *share)
{
	share->gateway->destroy(share->gateway);
	free(share);
}

/*
 * Described in header
 */
void rmobike_answer_destroy(rmobike_answer_t *answer)
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

/*
 * Described in header
 */
bool rmobike_answer_bucket(host_t *address, identification_t *identity,
						   uint32_t *bucket)
{
	uint8_t digest[HASH_SIZE_SHA256];
	hasher_t *hasher;
	chunk_t name;
	bool good;

	name = identity ? identity->get_encoding(identity)
					: address->get_address(address);
	hasher = lib->crypto->create_hasher(lib->crypto, HASH_SHA256);
	good = hasher && hasher->get_hash(hasher, name, digest);
	DESTROY_IF(hasher);
	*bucket = good ? untoh64(digest) % BUCKETS : 0;
	return good;
}

/*
 * Described in header
 */
identification_t *rmobike_answer_gateway(rmobike_answer_t *answer,
										 uint32_t bucket)
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

/*
 * Described in header
 */
bool rmobike_answer_excepts(rmobike_answer_t *answer, host_t *address,
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
static bool add_share(rmobike_answer_t *answer, char *gateway, char *percent)
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
	rmobike_answer_t *answer, vici_message_t *message, char *name, chunk_t value)
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
	rmobike_answer_t *answer, vici_message_t *message, char *name, chunk_t value)
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
 * Fill an answer, return the name of the argument that is wrong
 */
static char *parse_into(vici_message_t *request, rmobike_answer_t *answer)
{
	char *gateway = request->get_str(request, NULL, "gateway");
	uint32_t lifetime;

	if (!rmobike_parse_number(request->get_str(request, "0", "lifetime"), 0,
							  MAX_LIFETIME, &lifetime))
	{
		return "lifetime";
	}
	answer->until = lifetime ? time_monotonic(NULL) + lifetime : 0;
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

/*
 * Described in header
 */
rmobike_answer_t *rmobike_answer_parse(vici_message_t *request, char **wrong)
{
	rmobike_answer_t *answer;

	INIT(answer,
		.shares = linked_list_create(),
		.keep = BUCKETS,
		.again = request->get_bool(request, FALSE, "again"),
		.networks = linked_list_create(),
		.identities = linked_list_create(),
	);
	*wrong = parse_into(request, answer);
	if (*wrong)
	{
		rmobike_answer_destroy(answer);
		return NULL;
	}
	return answer;
}
