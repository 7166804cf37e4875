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

#include "rmobike_watch.h"

#include <daemon.h>
#include <threading/mutex.h>

#include "rmobike_notify.h"

typedef struct private_rmobike_watch_t private_rmobike_watch_t;

/**
 * Private data of an rmobike_watch_t object.
 */
struct private_rmobike_watch_t {

	/**
	 * Public interface
	 */
	rmobike_watch_t public;

	/**
	 * Socket, for commands and events
	 */
	rmobike_control_t *control;

	/**
	 * Watched notify types, a bit each
	 */
	uint8_t watched[(UINT16_MAX + 1) / 8];

	/**
	 * Leaf mutex for the above
	 */
	mutex_t *mutex;
};

/**
 * Raise an event for a watched notify
 */
static void raise_notify(private_rmobike_watch_t *this, ike_sa_t *ike_sa,
						 message_t *message, notify_payload_t *notify)
{
	vici_builder_t *builder;

	builder = this->control->event(this->control,
								   ike_sa->get_unique_id(ike_sa));
	builder->add_kv(builder, "exchange", "%s",
					rmobike_exchange_name(message->get_exchange_type(message)));
	builder->add_kv(builder, "message-id", "%u",
					message->get_message_id(message));
	builder->add_kv(builder, "request", "%s",
					message->get_request(message) ? "yes" : "no");
	builder->add_kv(builder, "initiator", "%s",
					ike_sa->has_condition(ike_sa, COND_ORIGINAL_INITIATOR) ?
					"yes" : "no");
	builder->add_kv(builder, "local", "%H", message->get_destination(message));
	builder->add_kv(builder, "remote", "%H", message->get_source(message));
	builder->add_kv(builder, "protocol", "%u",
					notify->get_protocol_id(notify));
	builder->add_kv(builder, "type", "%u", notify->get_notify_type(notify));
	rmobike_notify_add_data(builder, notify->get_notification_data(notify));
	this->control->raise(this->control, "notify", 0, builder);
}

METHOD(rmobike_watch_t, received, void,
	private_rmobike_watch_t *this, ike_sa_t *ike_sa, message_t *message)
{
	enumerator_t *enumerator;
	notify_payload_t *notify;
	payload_t *payload;
	uint16_t type;
	bool watched;

	enumerator = message->create_payload_enumerator(message);
	while (enumerator->enumerate(enumerator, &payload))
	{
		if (payload->get_type(payload) == PLV2_NOTIFY)
		{
			notify = (notify_payload_t*)payload;
			type = notify->get_notify_type(notify);
			this->mutex->lock(this->mutex);
			watched = this->watched[type / 8] & (1 << type % 8);
			this->mutex->unlock(this->mutex);
			if (watched)
			{
				raise_notify(this, ike_sa, message, notify);
			}
		}
	}
	enumerator->destroy(enumerator);
}

CALLBACK(watch, vici_message_t*,
	private_rmobike_watch_t *this, char *name, u_int client,
	vici_message_t *request)
{
	linked_list_t *items;
	uint8_t watched[sizeof(this->watched)] = {};
	enumerator_t *enumerator;
	uint32_t type;
	char *str;
	bool good = TRUE;

	items = rmobike_parse_list(request, "types");
	if (!items)
	{
		return this->control->refuse(this->control, "bad-request",
									 "types is too long");
	}
	enumerator = items->create_enumerator(items);
	while (good && enumerator->enumerate(enumerator, &str))
	{
		good = rmobike_parse_number(str, 1, UINT16_MAX, &type);
		if (good)
		{
			watched[type / 8] |= 1 << type % 8;
		}
	}
	enumerator->destroy(enumerator);
	items->destroy_function(items, free);
	if (!good)
	{
		return this->control->refuse(this->control, "bad-request",
									 "types has to be a list of numbers");
	}
	this->mutex->lock(this->mutex);
	memcpy(this->watched, watched, sizeof(watched));
	this->mutex->unlock(this->mutex);
	return this->control->done(this->control, NULL);
}

METHOD(rmobike_watch_t, destroy, void,
	private_rmobike_watch_t *this)
{
	this->mutex->destroy(this->mutex);
	free(this);
}

/*
 * Described in header
 */
rmobike_watch_t *rmobike_watch_create(rmobike_control_t *control)
{
	private_rmobike_watch_t *this;

	INIT(this,
		.public = {
			.received = _received,
			.destroy = _destroy,
		},
		.control = control,
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);

	control->add_event(control, "notify");
	control->add_command(control, "watch", watch, this);

	return &this->public;
}
