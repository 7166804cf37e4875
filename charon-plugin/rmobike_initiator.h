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
 * @defgroup rmobike_initiator rmobike_initiator
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_INITIATOR_H_
#define RMOBIKE_INITIATOR_H_

#include <sa/ike_sa.h>

#include "rmobike_control.h"
#include "rmobike_peers.h"
#include "rmobike_policy.h"
#include "rmobike_update.h"

typedef struct rmobike_initiator_t rmobike_initiator_t;

/**
 * Follows switches, as original initiator, and moves by the command
 * update-addresses.
 */
struct rmobike_initiator_t {

	/**
	 * Handle a decrypted INFORMATIONAL request.
	 *
	 * @param ike_sa	IKE_SA it was received on, checked out
	 * @param message	request
	 */
	void (*request)(rmobike_initiator_t *this, ike_sa_t *ike_sa,
					message_t *message);

	/**
	 * Destroy an rmobike_initiator_t.
	 */
	void (*destroy)(rmobike_initiator_t *this);
};

/**
 * Create the instance that follows switches.
 */
rmobike_initiator_t *rmobike_initiator_create(rmobike_control_t *control,
							rmobike_peers_t *peers, rmobike_policy_t *policy,
							rmobike_update_t *update);

#endif /** RMOBIKE_INITIATOR_H_ @}*/
