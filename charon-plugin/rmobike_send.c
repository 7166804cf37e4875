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

#include "rmobike_send.h"

#include <daemon.h>

#include "rmobike_notify.h"
#include "rmobike_task.h"

/** charon answers the 21st notify of an INFORMATIONAL with INVALID_SYNTAX, for
 * which the sender has to close its IKE_SA (RFC 7296, section 2.21.3) */
#define MAX_NOTIFIES 20
/** A message that has to be fragmented is taken for an unencrypted one by a
 * charon built with mediation (process_message_job.c), and never answered */
#define MAX_OCTETS 1100

typedef struct private_rmobike_send_t private_rmobike_send_t;

/**
 * Private data of an rmobike_send_t object.
 */
struct private_rmobike_send_t {

	/**
	 * Public interface
	 */
	rmobike_send_t public;

	/**
	 * Implements the interface to our tasks
	 */
	rmobike_task_owner_t owner;

	/**
	 * Socket, for commands and events
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;
};

/**
 * Get the sender a task owner belongs to
 */
static private_rmobike_send_t *instance_of(rmobike_task_owner_t *owner)
{
	return (private_rmobike_send_t*)((char*)owner -
						offsetof(private_rmobike_send_t, owner));
}

/**
 * Implements rmobike_task_owner_t.wanted
 */
static bool wanted(rmobike_task_owner_t *owner, rmobike_exchange_t *exchange)
{
	return TRUE;
}

/**
 * Implements rmobike_task_owner_t.answered
 */
static void answered(rmobike_task_owner_t *owner, rmobike_exchange_t *exchange,
					 ike_sa_t *ike_sa, message_t *response)
{
	private_rmobike_send_t *this = instance_of(owner);
	vici_builder_t *builder;

	builder = this->control->event(this->control,
								   ike_sa->get_unique_id(ike_sa));
	builder->add_kv(builder, "token", "%s", exchange->token);
	builder->add_kv(builder, "message-id", "%u",
					response->get_message_id(response));
	rmobike_notify_add_all(builder, response);
	this->control->raise(this->control, "notify-answered", 0, builder);
}

/**
 * Implements rmobike_task_owner_t.dropped
 */
static void dropped(rmobike_task_owner_t *owner, rmobike_exchange_t *exchange)
{
	private_rmobike_send_t *this = instance_of(owner);
	vici_builder_t *builder;

	builder = this->control->event(this->control, exchange->serial);
	builder->add_kv(builder, "token", "%s", exchange->token);
	this->control->raise(this->control, "notify-failed", 0, builder);
}

/**
 * Parse the list "notifies" of a request, NULL if it is not valid
 */
static linked_list_t *parse_notifies(vici_message_t *request)
{
	linked_list_t *notifies, *items;
	rmobike_notify_t *notify;
	enumerator_t *enumerator;
	size_t octets = 0;
	char *str;
	bool good;

	items = rmobike_parse_list(request, "notifies");
	if (!items)
	{
		return NULL;
	}
	notifies = linked_list_create();
	good = items->get_count(items) <= MAX_NOTIFIES &&
		   items->get_count(items);
	enumerator = items->create_enumerator(items);
	while (good && enumerator->enumerate(enumerator, &str))
	{
		notify = rmobike_notify_parse(str);
		good = notify != NULL;
		if (notify)
		{
			notifies->insert_last(notifies, notify);
			octets += notify->data.len;
			good = octets <= MAX_OCTETS;
		}
	}
	enumerator->destroy(enumerator);
	items->destroy_function(items, free);
	if (!good)
	{
		notifies->destroy_function(notifies, (void*)rmobike_notify_destroy);
		return NULL;
	}
	return notifies;
}

/**
 * Queue notifies on the current IKE_SA of a peer
 */
static vici_message_t *queue_notifies(private_rmobike_send_t *this,
							uint32_t id, char *token, linked_list_t *notifies)
{
	rmobike_exchange_t exchange = {};
	rmobike_peer_t *peer;
	ike_sa_t *ike_sa;

	peer = this->peers->lock(this->peers, id, FALSE);
	if (!peer)
	{
		notifies->destroy_function(notifies, (void*)rmobike_notify_destroy);
		return this->control->refuse(this->control, "unknown-ike-id",
									 "no IKEv2 SA with ike-id %u", id);
	}
	exchange.serial = peer->serial;
	this->peers->unlock(this->peers);

	ike_sa = rmobike_task_checkout(this->peers, exchange.serial);
	if (!ike_sa)
	{
		notifies->destroy_function(notifies, (void*)rmobike_notify_destroy);
		return this->control->refuse(this->control, "not-established",
									 "the IKE_SA is not established");
	}
	memcpy(exchange.token, token, RMOBIKE_TOKEN_SIZE);
	rmobike_task_queue(ike_sa, rmobike_task_create(&exchange, notifies,
												   &this->owner));
	charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	return this->control->done(this->control, NULL);
}

CALLBACK(send_notify, vici_message_t*,
	private_rmobike_send_t *this, char *name, u_int client,
	vici_message_t *request)
{
	char token[RMOBIKE_TOKEN_SIZE];
	linked_list_t *notifies;
	uint32_t id;

	if (!rmobike_parse_number(request->get_str(request, NULL, "ike-id"), 1,
							  UINT32_MAX, &id) ||
		!rmobike_parse_token(request->get_str(request, NULL, "token"), token))
	{
		return this->control->refuse(this->control, "bad-request",
							"ike-id has to be a number, token short");
	}
	notifies = parse_notifies(request);
	if (!notifies)
	{
		return this->control->refuse(this->control, "bad-request",
							"notifies has to be a list of 1 to %d items "
							"TYPE:HEX, %d octets of data in all",
							MAX_NOTIFIES, MAX_OCTETS);
	}
	return queue_notifies(this, id, token, notifies);
}

METHOD(rmobike_send_t, destroy, void,
	private_rmobike_send_t *this)
{
	free(this);
}

/*
 * Described in header
 */
rmobike_send_t *rmobike_send_create(rmobike_control_t *control,
									rmobike_peers_t *peers)
{
	private_rmobike_send_t *this;

	INIT(this,
		.public = {
			.destroy = _destroy,
		},
		.owner = {
			.wanted = wanted,
			.answered = answered,
			.dropped = dropped,
		},
		.control = control,
		.peers = peers,
	);

	control->add_event(control, "notify-answered");
	control->add_event(control, "notify-failed");
	control->add_command(control, "send-notify", send_notify, this);

	return &this->public;
}
