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

#include "rmobike_bridge.h"

#include <daemon.h>
#include <threading/mutex.h>

#include "rmobike_task.h"

/** Longest notification data and most notifies of a message reported to clients */
#define MAX_DATA 8192
#define MAX_REPORTED 32
/** charon answers the 21st notify of an INFORMATIONAL with INVALID_SYNTAX, for
 * which the sender has to close its IKE_SA (RFC 7296, section 2.21.3) */
#define MAX_NOTIFIES 20
/** A message that has to be fragmented is taken for an unencrypted one by a
 * charon built with mediation (process_message_job.c), and never answered */
#define MAX_OCTETS 1100
#define MAX_RULES 64

typedef struct private_rmobike_bridge_t private_rmobike_bridge_t;
typedef struct rule_t rule_t;

/**
 * Private data of an rmobike_bridge_t object.
 */
struct private_rmobike_bridge_t {

	/**
	 * Public interface
	 */
	rmobike_bridge_t public;

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

	/**
	 * Watched notify types, a bit each
	 */
	uint8_t watched[(UINT16_MAX + 1) / 8];

	/**
	 * Rules, rule_t
	 */
	linked_list_t *rules;

	/**
	 * Leaf mutex for the above
	 */
	mutex_t *mutex;
};

/**
 * A rule that adds a notify to messages
 */
struct rule_t {

	/** name given by the client */
	char name[RMOBIKE_TOKEN_SIZE];

	/** exchange it is for */
	exchange_type_t exchange;

	/** TRUE for requests, FALSE for responses */
	bool request;

	/** responses only: needs this type in the request, 0 for none */
	uint32_t when;

	/** responses only: answer with the data of the notify in the request */
	bool echo;

	/** serial of the only peer it is for, 0 for all */
	uint32_t serial;

	/** how often it is applied before it is removed, 0 for ever */
	uint32_t count;

	/** what it adds */
	rmobike_notify_t *notify;
};

/**
 * Destroy a rule
 */
static void rule_destroy(rule_t *rule)
{
	if (rule->notify)
	{
		rmobike_notify_destroy(rule->notify);
	}
	free(rule);
}

/**
 * Get the bridge a task owner belongs to
 */
static private_rmobike_bridge_t *instance_of(rmobike_task_owner_t *owner)
{
	return (private_rmobike_bridge_t*)((char*)owner -
						offsetof(private_rmobike_bridge_t, owner));
}

/**
 * Implements rmobike_task_owner_t.wanted
 */
static bool wanted(rmobike_task_owner_t *owner, rmobike_exchange_t *exchange)
{
	return TRUE;
}

/**
 * Add notification data to a message
 */
static void add_data(vici_builder_t *builder, chunk_t data)
{
	builder->add_kv(builder, "length", "%zu", data.len);
	data.len = min(data.len, MAX_DATA);
	data = chunk_to_hex(data, NULL, FALSE);
	builder->add(builder, VICI_KEY_VALUE, "data", data);
	chunk_free(&data);
}

/**
 * Add all notifies of an IKE message to a message
 */
static void add_notifies(vici_builder_t *builder, message_t *message)
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
			add_data(builder, notify->get_notification_data(notify));
			builder->end_section(builder);
		}
	}
	enumerator->destroy(enumerator);
}

/**
 * Implements rmobike_task_owner_t.answered
 */
static void answered(rmobike_task_owner_t *owner, rmobike_exchange_t *exchange,
					 ike_sa_t *ike_sa, message_t *response)
{
	private_rmobike_bridge_t *this = instance_of(owner);
	vici_builder_t *builder;

	builder = this->control->event(this->control,
								   ike_sa->get_unique_id(ike_sa));
	builder->add_kv(builder, "token", "%s", exchange->token);
	builder->add_kv(builder, "message-id", "%u",
					response->get_message_id(response));
	add_notifies(builder, response);
	this->control->raise(this->control, "notify-answered", 0, builder);
}

/**
 * Implements rmobike_task_owner_t.dropped
 */
static void dropped(rmobike_task_owner_t *owner, rmobike_exchange_t *exchange)
{
	private_rmobike_bridge_t *this = instance_of(owner);
	vici_builder_t *builder;

	builder = this->control->event(this->control, exchange->serial);
	builder->add_kv(builder, "token", "%s", exchange->token);
	this->control->raise(this->control, "notify-failed", 0, builder);
}

/**
 * Name of an exchange as in the documents
 */
static char *exchange_name(exchange_type_t exchange)
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

/**
 * Raise an event for a watched notify
 */
static void raise_notify(private_rmobike_bridge_t *this, ike_sa_t *ike_sa,
						 message_t *message, notify_payload_t *notify)
{
	vici_builder_t *builder;

	builder = this->control->event(this->control,
								   ike_sa->get_unique_id(ike_sa));
	builder->add_kv(builder, "exchange", "%s",
					exchange_name(message->get_exchange_type(message)));
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
	add_data(builder, notify->get_notification_data(notify));
	this->control->raise(this->control, "notify", 0, builder);
}

/**
 * Raise events for the watched notifies of a message
 */
static void report_watched(private_rmobike_bridge_t *this, ike_sa_t *ike_sa,
						   message_t *message)
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

/**
 * Get the serial of an IKE_SA's peer, 0 if it has none yet
 */
static uint32_t serial_of(private_rmobike_bridge_t *this, ike_sa_t *ike_sa)
{
	rmobike_peer_t *peer;
	uint32_t serial = 0;

	peer = this->peers->lock(this->peers, ike_sa->get_unique_id(ike_sa), FALSE);
	if (peer)
	{
		serial = peer->serial;
		this->peers->unlock(this->peers);
	}
	return serial;
}

/**
 * Collect what the matching rules add to a message
 *
 * @param out			TRUE for a message to send, FALSE for a request received
 * @param list			gets rmobike_notify_t added
 */
static void apply_rules(private_rmobike_bridge_t *this, message_t *message,
						uint32_t serial, bool out, linked_list_t *list)
{
	enumerator_t *enumerator;
	notify_payload_t *asked;
	chunk_t data;
	rule_t *rule;

	this->mutex->lock(this->mutex);
	enumerator = this->rules->create_enumerator(this->rules);
	while (enumerator->enumerate(enumerator, &rule))
	{
		if (rule->exchange != message->get_exchange_type(message) ||
			(rule->serial && rule->serial != serial) ||
			(out && (rule->request != message->get_request(message) ||
					 rule->when)) ||
			(!out && (rule->request || !rule->when)))
		{
			continue;
		}
		data = rule->notify->data;
		if (!out)
		{
			asked = message->get_notify(message, rule->when);
			if (!asked)
			{
				continue;
			}
			if (rule->echo)
			{
				data = asked->get_notification_data(asked);
			}
		}
		list->insert_last(list, rmobike_notify_create(rule->notify->type,
													  data));
		if (rule->count && --rule->count == 0)
		{
			this->rules->remove_at(this->rules, enumerator);
			rule_destroy(rule);
		}
	}
	enumerator->destroy(enumerator);
	this->mutex->unlock(this->mutex);
}

/**
 * Prepare the answers to a request
 */
static void prepare_answers(private_rmobike_bridge_t *this, ike_sa_t *ike_sa,
							message_t *message)
{
	linked_list_t *answers;
	rmobike_peer_t *peer;

	answers = linked_list_create();
	apply_rules(this, message, serial_of(this, ike_sa), FALSE, answers);
	peer = this->peers->lock(this->peers, ike_sa->get_unique_id(ike_sa),
							 answers->get_count(answers) > 0);
	if (peer)
	{
		linked_list_t *old = peer->answers;

		peer->answers = answers;
		answers = old;
		this->peers->unlock(this->peers);
	}
	answers->destroy_function(answers, (void*)rmobike_notify_destroy);
}

METHOD(rmobike_bridge_t, incoming, void,
	private_rmobike_bridge_t *this, ike_sa_t *ike_sa, message_t *message)
{
	report_watched(this, ike_sa, message);
	if (message->get_request(message))
	{
		prepare_answers(this, ike_sa, message);
	}
}

/**
 * Check if rules apply to this message at all
 */
static bool is_for_rules(ike_sa_t *ike_sa, message_t *message)
{
	switch (message->get_exchange_type(message))
	{
		case IKE_AUTH:
			/* with multiple rounds: the first request, the last response */
			return message->get_request(message) ?
						message->get_message_id(message) == 1 :
						ike_sa->has_condition(ike_sa, COND_AUTHENTICATED);
		case INFORMATIONAL:
			switch (ike_sa->get_state(ike_sa))
			{
				case IKE_ESTABLISHED:
				case IKE_REKEYING:
					return TRUE;
				default:
					return FALSE;
			}
		default:
			return FALSE;
	}
}

METHOD(rmobike_bridge_t, outgoing, void,
	private_rmobike_bridge_t *this, ike_sa_t *ike_sa, message_t *message)
{
	rmobike_notify_t *notify;
	rmobike_peer_t *peer;
	linked_list_t *list;

	if (!is_for_rules(ike_sa, message))
	{
		return;
	}
	list = linked_list_create();
	if (!message->get_request(message))
	{
		peer = this->peers->lock(this->peers, ike_sa->get_unique_id(ike_sa),
								 FALSE);
		if (peer)
		{
			while (peer->answers->remove_first(peer->answers,
											   (void**)&notify) == SUCCESS)
			{
				list->insert_last(list, notify);
			}
			this->peers->unlock(this->peers);
		}
	}
	apply_rules(this, message, serial_of(this, ike_sa), TRUE, list);
	while (list->remove_first(list, (void**)&notify) == SUCCESS)
	{
		message->add_notify(message, FALSE, notify->type, notify->data);
		rmobike_notify_destroy(notify);
	}
	list->destroy(list);
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

/**
 * Parse "TYPE" or "TYPE:HEX" to a notify, NULL if it is neither
 */
static rmobike_notify_t *parse_notify(char *str)
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
 * Get the items of a list in a request, as strings
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

/**
 * Parse the list "notifies" of a request, NULL if it is not valid
 */
static linked_list_t *parse_notifies(vici_message_t *request)
{
	list_items_t list = { "notifies", linked_list_create() };
	linked_list_t *notifies;
	rmobike_notify_t *notify;
	enumerator_t *enumerator;
	size_t octets = 0;
	char *str;
	bool good;

	notifies = linked_list_create();
	good = request->parse(request, NULL, NULL, NULL, collect, &list) &&
		   list.items->get_count(list.items) <= MAX_NOTIFIES &&
		   list.items->get_count(list.items);
	enumerator = list.items->create_enumerator(list.items);
	while (good && enumerator->enumerate(enumerator, &str))
	{
		notify = parse_notify(str);
		good = notify != NULL;
		if (notify)
		{
			notifies->insert_last(notifies, notify);
			octets += notify->data.len;
			good = octets <= MAX_OCTETS;
		}
	}
	enumerator->destroy(enumerator);
	list.items->destroy_function(list.items, free);
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
static vici_message_t *queue_notifies(private_rmobike_bridge_t *this,
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
	private_rmobike_bridge_t *this, char *name, u_int client,
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

CALLBACK(watch, vici_message_t*,
	private_rmobike_bridge_t *this, char *name, u_int client,
	vici_message_t *request)
{
	list_items_t list = { "types", linked_list_create() };
	uint8_t watched[sizeof(this->watched)] = {};
	enumerator_t *enumerator;
	uint32_t type;
	char *str;
	bool good;

	good = request->parse(request, NULL, NULL, NULL, collect, &list);
	enumerator = list.items->create_enumerator(list.items);
	while (good && enumerator->enumerate(enumerator, &str))
	{
		good = rmobike_parse_number(str, 1, UINT16_MAX, &type);
		if (good)
		{
			watched[type / 8] |= 1 << type % 8;
		}
	}
	enumerator->destroy(enumerator);
	list.items->destroy_function(list.items, free);
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

/**
 * Parse a rule, return what is wrong
 */
static char *parse_rule(private_rmobike_bridge_t *this, vici_message_t *request,
						rule_t *rule)
{
	char *str, *direction;
	rmobike_peer_t *peer;
	uint32_t id;

	str = request->get_str(request, NULL, "name");
	if (!str || !*str || !rmobike_parse_token(str, rule->name))
	{
		return "name";
	}
	str = request->get_str(request, "", "exchange");
	rule->exchange = streq(str, "IKE_AUTH") ? IKE_AUTH :
					 streq(str, "INFORMATIONAL") ? INFORMATIONAL :
					 EXCHANGE_TYPE_UNDEFINED;
	if (rule->exchange == EXCHANGE_TYPE_UNDEFINED)
	{
		return "exchange";
	}
	direction = request->get_str(request, "", "direction");
	rule->request = streq(direction, "request");
	if (!rule->request && !streq(direction, "response"))
	{
		return "direction";
	}
	str = request->get_str(request, NULL, "when");
	if (str && (rule->request ||
				!rmobike_parse_number(str, 1, UINT16_MAX, &rule->when)))
	{
		return "when";
	}
	rule->echo = request->get_bool(request, FALSE, "echo");
	if (rule->echo && !rule->when)
	{
		return "echo";
	}
	str = request->get_str(request, NULL, "count");
	if (str && !rmobike_parse_number(str, 1, UINT32_MAX, &rule->count))
	{
		return "count";
	}
	str = request->get_str(request, NULL, "notify");
	rule->notify = str ? parse_notify(str) : NULL;
	if (!rule->notify)
	{
		return "notify";
	}
	str = request->get_str(request, NULL, "ike-id");
	if (str)
	{
		peer = rmobike_parse_number(str, 1, UINT32_MAX, &id) ?
					this->peers->lock(this->peers, id, FALSE) : NULL;
		if (!peer)
		{
			return "ike-id";
		}
		rule->serial = peer->serial;
		this->peers->unlock(this->peers);
	}
	return NULL;
}

/**
 * Remove the rule with a given name
 */
static bool remove_named(private_rmobike_bridge_t *this, char *name)
{
	enumerator_t *enumerator;
	rule_t *rule;
	bool found = FALSE;

	enumerator = this->rules->create_enumerator(this->rules);
	while (!found && enumerator->enumerate(enumerator, &rule))
	{
		if (streq(rule->name, name))
		{
			this->rules->remove_at(this->rules, enumerator);
			rule_destroy(rule);
			found = TRUE;
		}
	}
	enumerator->destroy(enumerator);
	return found;
}

CALLBACK(add_rule, vici_message_t*,
	private_rmobike_bridge_t *this, char *name, u_int client,
	vici_message_t *request)
{
	rule_t *rule;
	char *wrong;

	INIT(rule);
	wrong = parse_rule(this, request, rule);
	if (!wrong)
	{
		this->mutex->lock(this->mutex);
		remove_named(this, rule->name);
		if (this->rules->get_count(this->rules) < MAX_RULES)
		{
			this->rules->insert_last(this->rules, rule);
			rule = NULL;
		}
		this->mutex->unlock(this->mutex);
		if (!rule)
		{
			return this->control->done(this->control, NULL);
		}
	}
	rule_destroy(rule);
	if (wrong)
	{
		return this->control->refuse(this->control, "bad-request",
									 "the value of %s is not valid", wrong);
	}
	return this->control->refuse(this->control, "too-many",
								 "there are %d rules already", MAX_RULES);
}

CALLBACK(remove_rule, vici_message_t*,
	private_rmobike_bridge_t *this, char *cmd, u_int client,
	vici_message_t *request)
{
	char *name;
	bool found;

	name = request->get_str(request, "", "name");
	this->mutex->lock(this->mutex);
	found = remove_named(this, name);
	this->mutex->unlock(this->mutex);
	if (!found)
	{
		return this->control->refuse(this->control, "unknown-rule",
									 "there is no rule of this name");
	}
	return this->control->done(this->control, NULL);
}

CALLBACK(list_rules, vici_message_t*,
	private_rmobike_bridge_t *this, char *name, u_int client,
	vici_message_t *request)
{
	enumerator_t *enumerator;
	vici_builder_t *builder;
	rule_t *rule;

	builder = this->control->builder(this->control);
	builder->begin_section(builder, "rules");
	this->mutex->lock(this->mutex);
	enumerator = this->rules->create_enumerator(this->rules);
	while (enumerator->enumerate(enumerator, &rule))
	{
		builder->begin_section(builder, rule->name);
		builder->add_kv(builder, "exchange", "%s",
						exchange_name(rule->exchange));
		builder->add_kv(builder, "direction", "%s",
						rule->request ? "request" : "response");
		builder->add_kv(builder, "type", "%u", rule->notify->type);
		builder->add_kv(builder, "when", "%u", rule->when);
		builder->add_kv(builder, "count", "%u", rule->count);
		builder->end_section(builder);
	}
	enumerator->destroy(enumerator);
	this->mutex->unlock(this->mutex);
	builder->end_section(builder);
	return this->control->done(this->control, builder);
}

METHOD(rmobike_bridge_t, destroy, void,
	private_rmobike_bridge_t *this)
{
	this->rules->destroy_function(this->rules, (void*)rule_destroy);
	this->mutex->destroy(this->mutex);
	free(this);
}

/*
 * Described in header
 */
rmobike_bridge_t *rmobike_bridge_create(rmobike_control_t *control,
										rmobike_peers_t *peers)
{
	private_rmobike_bridge_t *this;

	INIT(this,
		.public = {
			.incoming = _incoming,
			.outgoing = _outgoing,
			.destroy = _destroy,
		},
		.owner = {
			.wanted = wanted,
			.answered = answered,
			.dropped = dropped,
		},
		.control = control,
		.peers = peers,
		.rules = linked_list_create(),
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);

	control->add_event(control, "notify");
	control->add_event(control, "notify-answered");
	control->add_event(control, "notify-failed");
	control->add_command(control, "send-notify", send_notify, this);
	control->add_command(control, "watch", watch, this);
	control->add_command(control, "add-rule", add_rule, this);
	control->add_command(control, "remove-rule", remove_rule, this);
	control->add_command(control, "list-rules", list_rules, this);

	return &this->public;
}
