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
 * @defgroup rmobike_responder rmobike_responder
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_RESPONDER_H_
#define RMOBIKE_RESPONDER_H_

#include <sa/ike_sa.h>

#include "rmobike_control.h"
#include "rmobike_peers.h"
#include "rmobike_policy.h"

typedef struct rmobike_responder_t rmobike_responder_t;

/**
 * Asks peers to switch, as original responder, with the command
 * switch-address, and tells what became of it.
 */
struct rmobike_responder_t {

	/**
	 * Handle an address change of an IKE_SA.
	 *
	 * @param ike_sa	IKE_SA, still with its old addresses
	 * @param local		new local address
	 * @param remote	new remote address
	 */
	void (*updated)(rmobike_responder_t *this, ike_sa_t *ike_sa, host_t *local,
					host_t *remote);

	/**
	 * Handle the IKE_SA that replaces another, already known as the current
	 * one of its peer.
	 *
	 * @param ike_sa	new IKE_SA
	 */
	void (*rekeyed)(rmobike_responder_t *this, ike_sa_t *ike_sa);

	/**
	 * Handle the end of an IKE_SA.
	 */
	void (*gone)(rmobike_responder_t *this, ike_sa_t *ike_sa);

	/**
	 * Destroy an rmobike_responder_t.
	 */
	void (*destroy)(rmobike_responder_t *this);
};

/**
 * Create the instance that asks peers to switch.
 */
rmobike_responder_t *rmobike_responder_create(rmobike_control_t *control,
							rmobike_peers_t *peers, rmobike_policy_t *policy);

#endif /** RMOBIKE_RESPONDER_H_ @}*/
