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
 * @defgroup rmobike_watch rmobike_watch
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_WATCH_H_
#define RMOBIKE_WATCH_H_

#include <sa/ike_sa.h>

#include "rmobike_control.h"

typedef struct rmobike_watch_t rmobike_watch_t;

/**
 * Reports received notifies of any type, with the command watch.
 */
struct rmobike_watch_t {

	/**
	 * Handle a received, decrypted message.
	 *
	 * @param ike_sa	IKE_SA it was received on, checked out
	 * @param message	message
	 */
	void (*received)(rmobike_watch_t *this, ike_sa_t *ike_sa,
					 message_t *message);

	/**
	 * Destroy an rmobike_watch_t.
	 */
	void (*destroy)(rmobike_watch_t *this);
};

/**
 * Create the watch.
 */
rmobike_watch_t *rmobike_watch_create(rmobike_control_t *control);

#endif /** RMOBIKE_WATCH_H_ @}*/
