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

/**
 * @defgroup rmobike_answer rmobike_answer
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_ANSWER_H_
#define RMOBIKE_ANSWER_H_

#include <library.h>
#include <networking/host.h>
#include <plugins/vici/vici_message.h>
#include <utils/identification.h>

typedef struct rmobike_answer_t rmobike_answer_t;

/**
 * What clients are answered: which of them is redirected where.
 */
struct rmobike_answer_t {

	/** where to, private, in the order of the buckets that they take after
	 * those of the clients that are kept */
	linked_list_t *shares;

	/** buckets of clients that are kept, the first ones */
	uint32_t keep;

	/** redirect clients again that were redirected to us */
	bool again;

	/** monotonic time at which it ends, 0 for never: who set it may be dead,
	 * and what it redirects to with it */
	time_t until;

	/** networks that are not redirected, traffic_selector_t */
	linked_list_t *networks;

	/** identities that are not redirected, identification_t */
	linked_list_t *identities;
};

/**
 * Get the bucket of a client, the same on every gateway: the first eight bytes
 * of the SHA-256 of what names it, in network order, modulo 100.
 *
 * @param address		address of the client
 * @param identity		identity of the client, which names it if it is known,
 *						NULL if not
 * @param bucket		receives the bucket
 * @return				FALSE if there is no SHA-256 here
 */
bool rmobike_answer_bucket(host_t *address, identification_t *identity,
						   uint32_t *bucket);

/**
 * Parse an answer.
 *
 * @param request		request with gateway and percent or gateways, except,
 *						again, lifetime
 * @param wrong			receives the name of the argument that is not valid
 * @return				answer, NULL if not valid
 */
rmobike_answer_t *rmobike_answer_parse(vici_message_t *request, char **wrong);

/**
 * Check if a client is among the exceptions.
 */
bool rmobike_answer_excepts(rmobike_answer_t *this, host_t *address,
							identification_t *identity);

/**
 * Get the gateway that a bucket is redirected to.
 *
 * @return				gateway, NULL if the client is kept
 */
identification_t *rmobike_answer_gateway(rmobike_answer_t *this,
										 uint32_t bucket);

/**
 * Destroy an answer, or NULL.
 */
void rmobike_answer_destroy(rmobike_answer_t *this);

#endif /** RMOBIKE_ANSWER_H_ @}*/
