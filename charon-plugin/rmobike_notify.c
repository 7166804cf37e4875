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

#include "rmobike_notify.h"

#include "rmobike_control.h"

/** Longest notification data and most notifies of a message reported to clients */
#define MAX_DATA 8192
#define MAX_REPORTED 32

/*
 * Described in header
 */
rmobike_notify_t *rmobike_notify_create(uint16_t type, chunk_t data)
{
	rmobike_notify_t *this;

	INIT(this,
		.type = type,
		.data = chunk_clone(data),
	);
	return this;
}

/*
 * Described in header
 */
void rmobike_notify_destroy(rmobike_notify_t *this)
{
	chunk_free(&this->data);
	free(this);
}

/**
 * Parse hexadecimal data, NULL for none
 */
static bool parse_hex(char *str, chunk_t *data)
{
	size_t len = str ? strlen(str) : 0;

	*data = chunk_empty;
	if (len % 2 || len / 2 > MAX_DATA ||
		(len && strspn(str, "0123456789abcdefABCDEF") != len))
	{
		return FALSE;
	}
	if (len)
	{
		*data = chunk_from_hex(chunk_create(str, len), NULL);
	}
	return TRUE;
}

/*
 * Described in header
 */
rmobike_notify_t *rmobike_notify_parse(char *str)
{
	rmobike_notify_t *notify = NULL;
	char *hex;
	chunk_t data;
	uint32_t type;

	hex = strchr(str, ':');
	if (hex)
	{
		*hex++ = '\0';
	}
	if (rmobike_parse_number(str, 1, UINT16_MAX, &type) &&
		parse_hex(hex, &data))
	{
		notify = rmobike_notify_create(type, data);
		chunk_free(&data);
	}
	return notify;
}

/**
 * Collects the items of a list
 */
typedef struct {
	char *name;
	linked_list_t *items;
} list_items_t;

CALLBACK(collect, bool,
	list_items_t *list, vici_message_t *message, char *name, chunk_t value)
{
	if (streq(name, list->name))
	{
		if (list->items->get_count(list->items) > UINT16_MAX)
		{
			return FALSE;
		}
		list->items->insert_last(list->items, strndup(value.ptr, value.len));
	}
	return TRUE;
}

/*
 * Described in header
 */
linked_list_t *rmobike_parse_list(vici_message_t *request, char *name)
{
	list_items_t list = { name, linked_list_create() };

	if (!request->parse(request, NULL, NULL, NULL, collect, &list))
	{
		list.items->destroy_function(list.items, free);
		return NULL;
	}
	return list.items;
}

/*
 * Described in header
 */
char *rmobike_exchange_name(exchange_type_t exchange)
{
	switch (exchange)
	{
		case IKE_SA_INIT:
			return "IKE_SA_INIT";
		case IKE_AUTH:
			return "IKE_AUTH";
		case CREATE_CHILD_SA:
			return "CREATE_CHILD_SA";
		case INFORMATIONAL:
			return "INFORMATIONAL";
		default:
			return "UNKNOWN";
	}
}

/*
 * Described in header
 */
void rmobike_notify_add_data(vici_builder_t *builder, chunk_t data)
{
	builder->add_kv(builder, "length", "%zu", data.len);
	data.len = min(data.len, MAX_DATA);
	data = chunk_to_hex(data, NULL, FALSE);
	builder->add(builder, VICI_KEY_VALUE, "data", data);
	chunk_free(&data);
}

/*
 * Described in header
 */
void rmobike_notify_add_all(vici_builder_t *builder, message_t *message)
{
	enumerator_t *enumerator;
	notify_payload_t *notify;
	payload_t *payload;
	char section[16];
	int count = 0;

	enumerator = message->create_payload_enumerator(message);
	while (count < MAX_REPORTED && enumerator->enumerate(enumerator, &payload))
	{
		if (payload->get_type(payload) == PLV2_NOTIFY)
		{
			notify = (notify_payload_t*)payload;
			snprintf(section, sizeof(section), "notify%d", count++);
			builder->begin_section(builder, section);
			builder->add_kv(builder, "type", "%u",
							notify->get_notify_type(notify));
			rmobike_notify_add_data(builder,
									notify->get_notification_data(notify));
			builder->end_section(builder);
		}
	}
	enumerator->destroy(enumerator);
}
