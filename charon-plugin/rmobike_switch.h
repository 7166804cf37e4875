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
 * @defgroup rmobike_switch rmobike_switch
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_SWITCH_H_
#define RMOBIKE_SWITCH_H_

#include <sa/ike_sa.h>

#include "rmobike_control.h"
#include "rmobike_peers.h"
#include "rmobike_policy.h"
#include "rmobike_update.h"

typedef struct rmobike_switch_t rmobike_switch_t;

/**
 * SWITCH_TO_IP_ADDRESS, sent as responder and received as initiator, with the
 * commands switch-address and update-addresses.
 */
struct rmobike_switch_t {

	/**
	 * Handle a decrypted INFORMATIONAL request.
	 *
	 * @param ike_sa	IKE_SA it was received on, checked out
	 * @param message	request
	 */
	void (*request)(rmobike_switch_t *this, ike_sa_t *ike_sa,
					message_t *message);

	/**
	 * Handle an address change of an IKE_SA.
	 *
	 * @param ike_sa	IKE_SA, still with its old addresses
	 * @param local		new local address
	 * @param remote	new remote address
	 */
	void (*updated)(rmobike_switch_t *this, ike_sa_t *ike_sa, host_t *local,
					host_t *remote);

	/**
	 * Handle the IKE_SA that replaces another, already known as the current
	 * one of its peer.
	 *
	 * @param ike_sa	new IKE_SA
	 */
	void (*rekeyed)(rmobike_switch_t *this, ike_sa_t *ike_sa);

	/**
	 * Handle the end of an IKE_SA.
	 */
	void (*gone)(rmobike_switch_t *this, ike_sa_t *ike_sa);

	/**
	 * Destroy an rmobike_switch_t.
	 */
	void (*destroy)(rmobike_switch_t *this);
};

/**
 * Create the instance that handles switches.
 */
rmobike_switch_t *rmobike_switch_create(rmobike_control_t *control,
							rmobike_peers_t *peers, rmobike_policy_t *policy,
							rmobike_update_t *update);

#endif /** RMOBIKE_SWITCH_H_ @}*/
