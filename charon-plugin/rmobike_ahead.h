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
 * @defgroup rmobike_ahead rmobike_ahead
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_AHEAD_H_
#define RMOBIKE_AHEAD_H_

#include <encoding/message.h>
#include <sa/ike_sa.h>

/**
 * How far ahead the message ID of a request may be at most
 */
#define RMOBIKE_AHEAD_MAX 16

typedef struct rmobike_ahead_t rmobike_ahead_t;

/**
 * Peers whose requests have message IDs ahead of what is expected, as another
 * node took those between and died before anybody was told.
 *
 * Of an IKE_SA for which that is allowed the first request of the peer may be
 * ahead.  It is authenticated, and then expected, before charon compares its
 * message ID.  That happens once; it is not allowed any more after any request
 * was taken.
 */
struct rmobike_ahead_t {

	/**
	 * Allow it for a checked out IKE_SA that is about to be served.
	 *
	 * @param most		how far, 0 for not at all
	 */
	void (*allow)(rmobike_ahead_t *this, ike_sa_t *ike_sa, uint32_t most);

	/**
	 * Get how far ahead the next request to an IKE_SA may be.
	 */
	uint32_t (*allowed)(rmobike_ahead_t *this, ike_sa_t *ike_sa);

	/**
	 * Handle a received message that is neither parsed nor authenticated.
	 */
	void (*received)(rmobike_ahead_t *this, ike_sa_t *ike_sa,
					 message_t *message);

	/**
	 * Handle the end of an IKE_SA.
	 */
	void (*gone)(rmobike_ahead_t *this, ike_sa_t *ike_sa);

	/**
	 * Destroy an rmobike_ahead_t.
	 */
	void (*destroy)(rmobike_ahead_t *this);
};

/**
 * Create an instance.
 */
rmobike_ahead_t *rmobike_ahead_create();

#endif /** RMOBIKE_AHEAD_H_ @}*/
