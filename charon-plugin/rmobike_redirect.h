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
 * @defgroup rmobike_redirect rmobike_redirect
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_REDIRECT_H_
#define RMOBIKE_REDIRECT_H_

#include <sa/redirect_provider.h>

#include "rmobike_control.h"
#include "rmobike_peers.h"

typedef struct rmobike_redirect_t rmobike_redirect_t;

/**
 * Redirects clients in IKE_SA_INIT and IKE_AUTH (RFC 5685) as told with the
 * commands set-redirect, clear-redirect and explain-redirect.
 */
struct rmobike_redirect_t {

	/**
	 * Implements the interface of charon's redirect manager.
	 */
	redirect_provider_t provider;

	/**
	 * Destroy an rmobike_redirect_t.
	 */
	void (*destroy)(rmobike_redirect_t *this);
};

/**
 * Create the redirect provider.
 */
rmobike_redirect_t *rmobike_redirect_create(rmobike_control_t *control,
											rmobike_peers_t *peers);

#endif /** RMOBIKE_REDIRECT_H_ @}*/
