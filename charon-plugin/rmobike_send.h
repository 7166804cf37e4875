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
 * @defgroup rmobike_send rmobike_send
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_SEND_H_
#define RMOBIKE_SEND_H_

#include "rmobike_control.h"
#include "rmobike_peers.h"

typedef struct rmobike_send_t rmobike_send_t;

/**
 * Sends any notify in an INFORMATIONAL, with the command send-notify.
 */
struct rmobike_send_t {

	/**
	 * Destroy an rmobike_send_t.
	 */
	void (*destroy)(rmobike_send_t *this);
};

/**
 * Create the sender.
 */
rmobike_send_t *rmobike_send_create(rmobike_control_t *control,
									rmobike_peers_t *peers);

#endif /** RMOBIKE_SEND_H_ @}*/
