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
 * @defgroup rmobike_notify rmobike_notify
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_NOTIFY_H_
#define RMOBIKE_NOTIFY_H_

#include <library.h>
#include <collections/linked_list.h>
#include <encoding/message.h>
#include <plugins/vici/vici_builder.h>
#include <plugins/vici/vici_message.h>

/**
 * Type and data of a notify
 */
typedef struct {
	uint16_t type;
	chunk_t data;
} rmobike_notify_t;

/**
 * Create a notify, the data gets cloned.
 */
rmobike_notify_t *rmobike_notify_create(uint16_t type, chunk_t data);

/**
 * Destroy a notify.
 */
void rmobike_notify_destroy(rmobike_notify_t *this);

/**
 * Parse "TYPE" or "TYPE:HEX" to a notify.
 *
 * @param str			string to parse, gets changed
 * @return				notify, NULL if it is neither
 */
rmobike_notify_t *rmobike_notify_parse(char *str);

/**
 * Get the items of a list in a request.
 *
 * @param request		request
 * @param name			name of the list
 * @return				list of char*, to be freed; NULL if there are too many
 */
linked_list_t *rmobike_parse_list(vici_message_t *request, char *name);

/**
 * Name of an exchange as in the documents.
 */
char *rmobike_exchange_name(exchange_type_t exchange);

/**
 * Add notification data to a message for clients.
 */
void rmobike_notify_add_data(vici_builder_t *builder, chunk_t data);

/**
 * Add all notifies of an IKE message to a message for clients.
 */
void rmobike_notify_add_all(vici_builder_t *builder, message_t *message);

#endif /** RMOBIKE_NOTIFY_H_ @}*/
