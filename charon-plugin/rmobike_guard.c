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

#include "rmobike_guard.h"

#include <dlfcn.h>

#include <daemon.h>
#include <sa/task.h>
#include <sa/ikev2/tasks/ike_mobike.h>

/**
 * Get the base address of the object an address belongs to
 */
static void *object_of(void *address)
{
	Dl_info info;

	return address && dladdr(address, &info) ? info.dli_fbase : NULL;
}

/*
 * Described in header
 */
bool rmobike_guard_table(char *name, void *table, size_t size, void *symbol)
{
	void **method = table, *object = object_of(symbol);
	size_t i;

	for (i = 0; i < size / sizeof(void*); i++)
	{
		/* optional methods are NULL */
		if (method[i] && object_of(method[i]) != object)
		{
			DBG1(DBG_CFG, "rmobike: method %zu of %s is not where it should "
				 "be", i, name);
			return FALSE;
		}
	}
	if (method[i] && object_of(method[i]) == object)
	{
		DBG1(DBG_CFG, "rmobike: %s has more methods than the %zu known", name,
			 i);
		return FALSE;
	}
	return TRUE;
}

/**
 * Check the numbers of the task types we use
 */
static bool check_task_types()
{
	static const struct {
		task_type_t type;
		char *name;
	} tasks[] = {
		{ TASK_IKE_MOBIKE,		"IKE_MOBIKE"	},
		{ TASK_IKE_REDIRECT,	"IKE_REDIRECT"	},
		/* follows IKE_ME, which depends on --enable-mediation */
		{ TASK_CHILD_CREATE,	"CHILD_CREATE"	},
	};
	char *name;
	int i;

	for (i = 0; i < countof(tasks); i++)
	{
		name = enum_to_name(task_type_names, tasks[i].type);
		if (!name || !streq(name, tasks[i].name))
		{
			DBG1(DBG_CFG, "rmobike: task type %d is %s here, not %s",
				 tasks[i].type, name ?: "unknown", tasks[i].name);
			return FALSE;
		}
	}
	return TRUE;
}

/**
 * Check the layout of IKE_SAs
 */
static bool check_ike_sa()
{
	ike_sa_id_t *id;
	ike_sa_t *ike_sa;
	bool good;

	id = ike_sa_id_create(IKEV2_MAJOR_VERSION, 1, 0, TRUE);
	ike_sa = ike_sa_create(id, TRUE, IKEV2);
	if (!ike_sa)
	{
		id->destroy(id);
		DBG1(DBG_CFG, "rmobike: no IKE_SA could be created to check");
		return FALSE;
	}
	good = rmobike_guard_table("ike_sa_t", ike_sa, sizeof(*ike_sa),
							   ike_sa_create);
	if (good)
	{
		ike_sa->set_condition(ike_sa, COND_ORIGINAL_INITIATOR, TRUE);
		good = ike_sa->has_condition(ike_sa, COND_ORIGINAL_INITIATOR) &&
			   ike_sa->get_version(ike_sa) == IKEV2;
		ike_sa->destroy(ike_sa);
		charon->bus->set_sa(charon->bus, NULL);
	}
	id->destroy(id);
	return good;
}

/**
 * Check the layout of MOBIKE tasks
 */
static bool check_mobike()
{
	ike_mobike_t *mobike;
	bool good;

	mobike = ike_mobike_create(NULL, TRUE);
	good = rmobike_guard_table("ike_mobike_t", mobike, sizeof(*mobike),
							   ike_mobike_create);
	if (good)
	{
		good = !mobike->is_probing(mobike);
		mobike->enable_probing(mobike);
		good = good && mobike->is_probing(mobike) &&
			   mobike->task.get_type(&mobike->task) == TASK_IKE_MOBIKE;
		mobike->task.destroy(&mobike->task);
	}
	return good;
}

/**
 * Check the layout of messages and notifies
 */
static bool check_message()
{
	notify_payload_t *notify;
	message_t *message;
	chunk_t data = chunk_from_chars('R');
	bool good;

	message = message_create(IKEV2_MAJOR_VERSION, IKEV2_MINOR_VERSION);
	good = rmobike_guard_table("message_t", message, sizeof(*message),
							   message_create);
	if (good)
	{
		message->set_exchange_type(message, INFORMATIONAL);
		message->set_message_id(message, 7);
		message->add_notify(message, FALSE, MOBIKE_SUPPORTED, data);
		notify = message->get_notify(message, MOBIKE_SUPPORTED);
		good = message->get_exchange_type(message) == INFORMATIONAL &&
			   message->get_message_id(message) == 7 && notify &&
			   rmobike_guard_table("notify_payload_t", notify, sizeof(*notify),
								   message_create) &&
			   chunk_equals(notify->get_notification_data(notify), data);
		message->destroy(message);
	}
	return good;
}

/*
 * Described in header
 */
bool rmobike_guard_check()
{
	if (!check_task_types() ||
		!rmobike_guard_table("bus_t", charon->bus, sizeof(*charon->bus),
							 ike_sa_create) ||
		!rmobike_guard_table("ike_sa_manager_t", charon->ike_sa_manager,
							 sizeof(*charon->ike_sa_manager), ike_sa_create) ||
		!rmobike_guard_table("kernel_interface_t", charon->kernel,
							 sizeof(*charon->kernel), ike_sa_create) ||
		!rmobike_guard_table("redirect_manager_t", charon->redirect,
							 sizeof(*charon->redirect), ike_sa_create) ||
		!rmobike_guard_table("attribute_manager_t", charon->attributes,
							 sizeof(*charon->attributes), ike_sa_create) ||
		!check_ike_sa() || !check_mobike() || !check_message())
	{
		DBG1(DBG_CFG, "rmobike: built for strongSwan %s, which is not what "
			 "runs here: not loaded (build it against the sources of the "
			 "installed package)", VERSION);
		return FALSE;
	}
	return TRUE;
}
