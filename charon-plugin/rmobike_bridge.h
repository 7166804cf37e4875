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
 * @defgroup rmobike_bridge rmobike_bridge
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_BRIDGE_H_
#define RMOBIKE_BRIDGE_H_

#include <sa/ike_sa.h>

#include "rmobike_control.h"
#include "rmobike_peers.h"

typedef struct rmobike_bridge_t rmobike_bridge_t;

/**
 * Lets a client of the control socket send, see and preset any notify, with
 * the commands send-notify, watch, add-rule, remove-rule and list-rules.
 */
struct rmobike_bridge_t {

	/**
	 * Handle a received, decrypted message.
	 */
	void (*incoming)(rmobike_bridge_t *this, ike_sa_t *ike_sa,
					 message_t *message);

	/**
	 * Handle a message that is about to be encrypted and sent.
	 */
	void (*outgoing)(rmobike_bridge_t *this, ike_sa_t *ike_sa,
					 message_t *message);

	/**
	 * Destroy an rmobike_bridge_t.
	 */
	void (*destroy)(rmobike_bridge_t *this);
};

/**
 * Create the bridge.
 */
rmobike_bridge_t *rmobike_bridge_create(rmobike_control_t *control,
										rmobike_peers_t *peers);

#endif /** RMOBIKE_BRIDGE_H_ @}*/
