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
 * @defgroup rmobike_rules rmobike_rules
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_RULES_H_
#define RMOBIKE_RULES_H_

#include <sa/ike_sa.h>

#include "rmobike_control.h"
#include "rmobike_peers.h"

typedef struct rmobike_rules_t rmobike_rules_t;

/**
 * Rules that add notifies to messages, with the commands add-rule, remove-rule
 * and list-rules.
 */
struct rmobike_rules_t {

	/**
	 * Handle a received, decrypted request.
	 *
	 * @param ike_sa	IKE_SA it was received on, checked out
	 * @param message	request
	 */
	void (*request)(rmobike_rules_t *this, ike_sa_t *ike_sa,
					message_t *message);

	/**
	 * Handle a message that is about to be encrypted and sent.
	 *
	 * @param ike_sa	IKE_SA it is sent on, checked out
	 * @param message	message, gets notifies added
	 */
	void (*outgoing)(rmobike_rules_t *this, ike_sa_t *ike_sa,
					 message_t *message);

	/**
	 * Destroy an rmobike_rules_t.
	 */
	void (*destroy)(rmobike_rules_t *this);
};

/**
 * Create the rules, none at first.
 */
rmobike_rules_t *rmobike_rules_create(rmobike_control_t *control,
									  rmobike_peers_t *peers);

#endif /** RMOBIKE_RULES_H_ @}*/
