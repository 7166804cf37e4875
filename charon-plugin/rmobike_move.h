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
 * @defgroup rmobike_move rmobike_move
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_MOVE_H_
#define RMOBIKE_MOVE_H_

#include "rmobike_ahead.h"
#include "rmobike_control.h"
#include "rmobike_freeze.h"
#include "rmobike_peers.h"

typedef struct rmobike_move_t rmobike_move_t;

/**
 * What a move of an IKE_SA between nodes needs of charon, with the commands
 * move-status, freeze, thaw, passivate, activate and drop.
 *
 * The IKE_SAs that are not served here are made by charon's ha plugin.
 */
struct rmobike_move_t {

	/**
	 * Destroy an rmobike_move_t.
	 */
	void (*destroy)(rmobike_move_t *this);
};

/**
 * Create the move helper.
 */
rmobike_move_t *rmobike_move_create(rmobike_control_t *control,
							rmobike_peers_t *peers, rmobike_freeze_t *freeze,
							rmobike_ahead_t *ahead);

#endif /** RMOBIKE_MOVE_H_ @}*/
