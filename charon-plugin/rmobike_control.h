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
 * @defgroup rmobike_control rmobike_control
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_CONTROL_H_
#define RMOBIKE_CONTROL_H_

#include <library.h>
#include <networking/host.h>
#include <selectors/traffic_selector.h>
#include <plugins/vici/vici_builder.h>
#include <plugins/vici/vici_dispatcher.h>

#include "rmobike_peers.h"

typedef struct rmobike_control_t rmobike_control_t;

/**
 * Control socket that speaks the vici protocol, with the dispatcher of
 * charon's vici plugin.
 */
struct rmobike_control_t {

	/**
	 * Register a command.
	 *
	 * @param name		name of the command, a constant
	 * @param cb		callback
	 * @param user		data to pass to callback
	 */
	void (*add_command)(rmobike_control_t *this, char *name,
						vici_command_cb_t cb, void *user);

	/**
	 * Register an event.
	 *
	 * @param name		name of the event, a constant
	 */
	void (*add_event)(rmobike_control_t *this, char *name);

	/**
	 * Create an empty builder.
	 */
	vici_builder_t *(*builder)(rmobike_control_t *this);

	/**
	 * Create a builder for an event about an IKE_SA.
	 *
	 * @param id		unique ID of the IKE_SA
	 */
	vici_builder_t *(*event)(rmobike_control_t *this, uint32_t id);

	/**
	 * Raise an event.  Does not block, may be called in bus hooks.
	 *
	 * @param name		name of the event
	 * @param client	client to send it to, 0 for all
	 * @param builder	contents, gets destroyed
	 */
	void (*raise)(rmobike_control_t *this, char *name, u_int client,
				  vici_builder_t *builder);

	/**
	 * Create the response of a command that succeeded.
	 *
	 * @param builder	more contents, gets destroyed, or NULL
	 */
	vici_message_t *(*done)(rmobike_control_t *this, vici_builder_t *builder);

	/**
	 * Create the response of a command that is refused.
	 *
	 * @param code		short reason, for programs
	 * @param fmt		reason, for people
	 */
	vici_message_t *(*refuse)(rmobike_control_t *this, char *code, char *fmt,
							  ...);

	/**
	 * Unregister everything and close the socket.
	 */
	void (*destroy)(rmobike_control_t *this);
};

/**
 * Check if a host is a unicast address.
 */
bool rmobike_is_unicast(host_t *host);

/**
 * Check if an address is one of ours.
 */
bool rmobike_is_local(host_t *host);

/**
 * Parse an address given by a client: a unicast IP address, no name.
 *
 * @return				host without port, NULL if it is none
 */
host_t *rmobike_parse_address(char *str);

/**
 * Parse an address or a network given by a client.
 *
 * @param str			address, optionally with a prefix length
 * @return				network, NULL if it is none
 */
traffic_selector_t *rmobike_parse_network(char *str);

/**
 * Check that a token is short and harmless, and copy it.
 *
 * @param str			token as given, NULL for an empty one
 * @return				TRUE if valid
 */
bool rmobike_parse_token(char *str, char token[RMOBIKE_TOKEN_SIZE]);

/**
 * Parse an unsigned number.
 *
 * @param str			string to parse, may be NULL
 * @param min			smallest number accepted
 * @param max			largest number accepted
 * @param number		receives the number
 * @return				TRUE if valid
 */
bool rmobike_parse_number(char *str, uint32_t min, uint32_t max,
						  uint32_t *number);

/**
 * Open the control socket.
 *
 * @param uri			URI of the socket
 * @return				control socket, NULL (and logged) if that failed
 */
rmobike_control_t *rmobike_control_create(char *uri);

#endif /** RMOBIKE_CONTROL_H_ @}*/
