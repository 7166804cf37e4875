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
 * @defgroup rmobike_pool rmobike_pool
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_POOL_H_
#define RMOBIKE_POOL_H_

#include <attributes/attribute_provider.h>

#include "rmobike_control.h"

typedef struct rmobike_pool_t rmobike_pool_t;

/**
 * Gives clients virtual IPs out of a stock that is filled from outside: the
 * commands set-pool, add-addresses, remove-addresses and list-addresses.
 *
 * An address that a client had is kept for its identity until somebody
 * outside says that it may go to another.
 */
struct rmobike_pool_t {

	/**
	 * Implements the interface of charon's attribute manager.
	 */
	attribute_provider_t provider;

	/**
	 * Destroy an rmobike_pool_t.
	 */
	void (*destroy)(rmobike_pool_t *this);
};

/**
 * Create the attribute provider.
 */
rmobike_pool_t *rmobike_pool_create(rmobike_control_t *control,
									rmobike_peers_t *peers);

#endif /** RMOBIKE_POOL_H_ @}*/
