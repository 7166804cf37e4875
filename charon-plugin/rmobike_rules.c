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

#include "rmobike_rules.h"

#include <daemon.h>
#include <threading/mutex.h>

#include "rmobike_notify.h"

#define MAX_RULES 64

typedef struct rule_t rule_t;
typedef struct private_rmobike_rules_t private_rmobike_rules_t;

/**
 * Private data of an rmobike_rules_t object.
 */
struct private_rmobike_rules_t {

	/**
	 * Public interface
	 */
	rmobike_rules_t public;

	/**
	 * Socket, for commands and events
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;

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
 * Get the serial of an IKE_SA's peer, 0 if it has none yet
 */
static uint32_t serial_of(private_rmobike_rules_t *this, ike_sa_t *ike_sa)
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
static void apply_rules(private_rmobike_rules_t *this, message_t *message,
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

METHOD(rmobike_rules_t, request, void,
	private_rmobike_rules_t *this, ike_sa_t *ike_sa, message_t *message)
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

METHOD(rmobike_rules_t, outgoing, void,
	private_rmobike_rules_t *this, ike_sa_t *ike_sa, message_t *message)
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
 * Parse a rule, return what is wrong
 */
static char *parse_rule(private_rmobike_rules_t *this, vici_message_t *request,
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
	rule->notify = str ? rmobike_notify_parse(str) : NULL;
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
static bool remove_named(private_rmobike_rules_t *this, char *name)
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
	private_rmobike_rules_t *this, char *name, u_int client,
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
	private_rmobike_rules_t *this, char *cmd, u_int client,
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
	private_rmobike_rules_t *this, char *name, u_int client,
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
						rmobike_exchange_name(rule->exchange));
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

METHOD(rmobike_rules_t, destroy, void,
	private_rmobike_rules_t *this)
{
	this->rules->destroy_function(this->rules, (void*)rule_destroy);
	this->mutex->destroy(this->mutex);
	free(this);
}

/*
 * Described in header
 */
rmobike_rules_t *rmobike_rules_create(rmobike_control_t *control,
									  rmobike_peers_t *peers)
{
	private_rmobike_rules_t *this;

	INIT(this,
		.public = {
			.request = _request,
			.outgoing = _outgoing,
			.destroy = _destroy,
		},
		.control = control,
		.peers = peers,
		.rules = linked_list_create(),
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);

	control->add_command(control, "add-rule", add_rule, this);
	control->add_command(control, "remove-rule", remove_rule, this);
	control->add_command(control, "list-rules", list_rules, this);

	return &this->public;
}
