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

#include "rmobike_policy.h"

#include <daemon.h>
#include <threading/mutex.h>

/**
 * SWITCH_TO_IP_ADDRESS: IANA has given no number, this is of the private use
 * range, and the default of mobikectl.wire too
 */
#define SWITCH_TO_IP_ADDRESS "41042"

#define PRIVATE_USE_FIRST 40960
#define MAX_ALLOWED 256

typedef struct private_rmobike_policy_t private_rmobike_policy_t;
typedef struct settings_values_t settings_values_t;

/**
 * What addresses to accept
 */
typedef enum {
	/** addresses the peer told us in ADDITIONAL_IP*_ADDRESS, and listed ones */
	ACCEPT_ADDITIONAL,
	/** listed addresses only */
	ACCEPT_LISTED,
	/** any address */
	ACCEPT_ANY,
	/** none at all */
	ACCEPT_NONE,
	ACCEPT_COUNT,
} accept_t;

static char *accept_names[] = {
	[ACCEPT_ADDITIONAL] = "additional",
	[ACCEPT_LISTED] = "listed",
	[ACCEPT_ANY] = "any",
	[ACCEPT_NONE] = "none",
};

/**
 * Values that can change at run time
 */
struct settings_values_t {

	/** announce 'R' */
	bool announce;

	/** what to accept */
	accept_t accept;

	/** allowed networks, traffic_selector_t */
	linked_list_t *allow;

	/** size of the token bucket */
	uint32_t burst;

	/** milliseconds until the bucket gets another token, 0 for no limit */
	uint32_t interval;
};

/**
 * Private data of an rmobike_policy_t object.
 */
struct private_rmobike_policy_t {

	/**
	 * Public interface
	 */
	rmobike_policy_t public;

	/**
	 * Socket, for the command
	 */
	rmobike_control_t *control;

	/**
	 * Number of SWITCH_TO_IP_ADDRESS
	 */
	uint32_t notify_type;

	/**
	 * Current values
	 */
	settings_values_t values;

	/**
	 * Leaf mutex for the values
	 */
	mutex_t *mutex;
};

/**
 * Destroy a list of networks
 */
static void destroy_allow(linked_list_t *allow)
{
	allow->destroy_offset(allow, offsetof(traffic_selector_t, destroy));
}

/**
 * Parse the name of what to accept
 */
static bool parse_accept(char *str, accept_t *accept)
{
	int i;

	for (i = 0; i < ACCEPT_COUNT; i++)
	{
		if (strcaseeq(str, accept_names[i]))
		{
			*accept = i;
			return TRUE;
		}
	}
	return FALSE;
}

/**
 * Add a network to a list
 */
static bool add_allowed(linked_list_t *allow, char *str)
{
	traffic_selector_t *ts;

	if (allow->get_count(allow) >= MAX_ALLOWED)
	{
		return FALSE;
	}
	ts = rmobike_parse_network(str);
	if (!ts)
	{
		return FALSE;
	}
	allow->insert_last(allow, ts);
	return TRUE;
}

/**
 * Parse a switch
 */
static bool parse_bool(char *str, bool *value)
{
	*value = streq(str, "yes");
	return *value || streq(str, "no");
}

METHOD(rmobike_policy_t, get_notify_type, notify_type_t,
	private_rmobike_policy_t *this)
{
	return this->notify_type;
}

METHOD(rmobike_policy_t, announces, bool,
	private_rmobike_policy_t *this)
{
	bool announce;

	this->mutex->lock(this->mutex);
	announce = this->values.announce;
	this->mutex->unlock(this->mutex);
	return announce;
}

METHOD(rmobike_policy_t, accepts, bool,
	private_rmobike_policy_t *this, host_t *target, bool known)
{
	enumerator_t *enumerator;
	traffic_selector_t *ts;
	bool accept;

	this->mutex->lock(this->mutex);
	accept = this->values.accept == ACCEPT_ANY ||
			 (known && this->values.accept == ACCEPT_ADDITIONAL);
	if (this->values.accept != ACCEPT_NONE)
	{
		enumerator = this->values.allow->create_enumerator(this->values.allow);
		while (!accept && enumerator->enumerate(enumerator, &ts))
		{
			accept = ts->includes(ts, target);
		}
		enumerator->destroy(enumerator);
	}
	this->mutex->unlock(this->mutex);
	return accept;
}

METHOD(rmobike_policy_t, take, bool,
	private_rmobike_policy_t *this, double *level, timeval_t *filled)
{
	timeval_t now, diff;
	double burst, interval;

	this->mutex->lock(this->mutex);
	burst = this->values.burst;
	interval = this->values.interval;
	this->mutex->unlock(this->mutex);

	time_monotonic(&now);
	if (*level < 0 || !interval)
	{
		*level = burst;
	}
	else
	{
		timersub(&now, filled, &diff);
		*level += (diff.tv_sec * 1000.0 + diff.tv_usec / 1000.0) / interval;
		*level = min(*level, burst);
	}
	*filled = now;
	if (*level < 1)
	{
		return FALSE;
	}
	*level -= 1;
	return TRUE;
}

METHOD(rmobike_policy_t, describe, void,
	private_rmobike_policy_t *this, vici_builder_t *builder)
{
	enumerator_t *enumerator;
	traffic_selector_t *ts;

	builder->add_kv(builder, "notify-type", "%u", this->notify_type);
	this->mutex->lock(this->mutex);
	builder->add_kv(builder, "announce", "%s",
					this->values.announce ? "yes" : "no");
	builder->add_kv(builder, "accept", "%s",
					accept_names[this->values.accept]);
	builder->add_kv(builder, "burst", "%u", this->values.burst);
	builder->add_kv(builder, "interval-ms", "%u", this->values.interval);
	builder->begin_list(builder, "allow");
	enumerator = this->values.allow->create_enumerator(this->values.allow);
	while (enumerator->enumerate(enumerator, &ts))
	{
		builder->add_li(builder, "%R", ts);
	}
	enumerator->destroy(enumerator);
	builder->end_list(builder);
	this->mutex->unlock(this->mutex);
}

/**
 * Parse values given as strings, NULL for those that do not change
 *
 * @return			name of a value that is not valid, NULL if all are
 */
static char *parse_values(settings_values_t *values, char *announce,
						  char *accept, char *burst, char *interval,
						  char *allow)
{
	enumerator_t *enumerator;
	char *str, *wrong = NULL;

	if (announce && !parse_bool(announce, &values->announce))
	{
		return "announce";
	}
	if (accept && !parse_accept(accept, &values->accept))
	{
		return "accept";
	}
	if (burst && !rmobike_parse_number(burst, 1, 1000, &values->burst))
	{
		return "burst";
	}
	if (interval &&
		!rmobike_parse_number(interval, 0, 3600000, &values->interval))
	{
		return "interval";
	}
	enumerator = enumerator_create_token(allow ?: "", ",", " ");
	while (!wrong && enumerator->enumerate(enumerator, &str))
	{
		if (*str && !add_allowed(values->allow, str))
		{
			wrong = "allow";
		}
	}
	enumerator->destroy(enumerator);
	return wrong;
}

CALLBACK(set_policy, vici_message_t*,
	private_rmobike_policy_t *this, char *name, u_int client,
	vici_message_t *request)
{
	settings_values_t values;
	linked_list_t *unused;
	char *allow, *wrong;

	allow = request->get_str(request, NULL, "allow");
	this->mutex->lock(this->mutex);
	values = this->values;
	this->mutex->unlock(this->mutex);
	values.allow = linked_list_create();

	wrong = parse_values(&values, request->get_str(request, NULL, "announce"),
						 request->get_str(request, NULL, "accept"),
						 request->get_str(request, NULL, "burst"),
						 request->get_str(request, NULL, "interval-ms"), allow);
	unused = values.allow;
	if (!wrong)
	{
		this->mutex->lock(this->mutex);
		if (allow)
		{
			unused = this->values.allow;
		}
		else
		{
			values.allow = this->values.allow;
		}
		this->values = values;
		this->mutex->unlock(this->mutex);
	}
	destroy_allow(unused);
	if (wrong)
	{
		return this->control->refuse(this->control, "bad-request",
									 "the value of %s is not valid", wrong);
	}
	return this->control->done(this->control, NULL);
}

METHOD(rmobike_policy_t, destroy, void,
	private_rmobike_policy_t *this)
{
	destroy_allow(this->values.allow);
	this->mutex->destroy(this->mutex);
	free(this);
}

/**
 * Get a setting
 */
static char *setting(char *name, char *def)
{
	return lib->settings->get_str(lib->settings, "%s.plugins.rmobike.%s", def,
								  lib->ns, name);
}

/**
 * Read strongswan.conf, return the name of what is wrong
 */
static char *read_settings(private_rmobike_policy_t *this)
{
	if (!rmobike_parse_number(setting("notify_type", SWITCH_TO_IP_ADDRESS),
							  PRIVATE_USE_FIRST, UINT16_MAX,
							  &this->notify_type))
	{
		return "notify_type";
	}
	return parse_values(&this->values, setting("announce", "yes"),
						setting("accept", "additional"), setting("burst", "5"),
						setting("interval_ms", "2000"), setting("allow", ""));
}

/*
 * Described in header
 */
rmobike_policy_t *rmobike_policy_create(rmobike_control_t *control)
{
	private_rmobike_policy_t *this;
	char *wrong;

	INIT(this,
		.public = {
			.get_notify_type = _get_notify_type,
			.announces = _announces,
			.accepts = _accepts,
			.take = _take,
			.describe = _describe,
			.destroy = _destroy,
		},
		.control = control,
		.values = {
			.allow = linked_list_create(),
		},
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);

	wrong = read_settings(this);
	if (wrong)
	{
		DBG1(DBG_CFG, "rmobike: the value of '%s' in strongswan.conf is not "
			 "valid", wrong);
		destroy(this);
		return NULL;
	}
	control->add_command(control, "set-policy", set_policy, this);

	return &this->public;
}
