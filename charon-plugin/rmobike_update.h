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
 * @defgroup rmobike_update rmobike_update
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_UPDATE_H_
#define RMOBIKE_UPDATE_H_

#include "rmobike_control.h"
#include "rmobike_peers.h"

typedef struct rmobike_update_t rmobike_update_t;

/**
 * MOBIKE updates to a given path, as original initiator.
 *
 * Uses charon's own MOBIKE task, but sends the first path probes to the wanted
 * path only; if they stay unanswered, the following ones go to the current path
 * too, and later to all known addresses of the peer.  A dead target so leaves
 * the IKE_SA where it is.
 *
 * Raises update-done and update-failed.
 */
struct rmobike_update_t {

	/**
	 * Start an update some milliseconds from now, in a job.
	 *
	 * @param serial	serial of the peer
	 * @param local		local address, gets cloned, NULL to keep it
	 * @param remote	remote address, gets cloned, NULL to keep it
	 * @param token		token for the events
	 * @param cause		cause for the events, a constant
	 */
	void (*schedule)(rmobike_update_t *this, uint32_t serial, host_t *local,
					 host_t *remote, char *token, char *cause);

	/**
	 * Start a liveness check some milliseconds from now, in a job.
	 *
	 * @param serial	serial of the peer
	 */
	void (*check_liveness)(rmobike_update_t *this, uint32_t serial);

	/**
	 * Destroy an rmobike_update_t.
	 */
	void (*destroy)(rmobike_update_t *this);
};

/**
 * Create the instance that starts updates; there may be only one.
 */
rmobike_update_t *rmobike_update_create(rmobike_control_t *control,
										rmobike_peers_t *peers);

#endif /** RMOBIKE_UPDATE_H_ @}*/
