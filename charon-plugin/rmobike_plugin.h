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
 * @defgroup rmobike rmobike
 * @ingroup cplugins
 *
 * @defgroup rmobike_plugin rmobike_plugin
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_PLUGIN_H_
#define RMOBIKE_PLUGIN_H_

#include <plugins/plugin.h>

typedef struct rmobike_plugin_t rmobike_plugin_t;

/**
 * Responder initiated MOBIKE (draft-smyslov-ipsecme-ikev2-r-mobike), a bridge
 * for notifies and a redirect provider, all steered over a control socket.
 */
struct rmobike_plugin_t {

	/**
	 * Implements plugin interface.
	 */
	plugin_t plugin;
};

#endif /** RMOBIKE_PLUGIN_H_ @}*/
