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

#include "rmobike_standing.h"

#include <errno.h>
#include <inttypes.h>

#include <daemon.h>

#include "rmobike_control.h"
#include "rmobike_notify.h"

/*
 * Described in header
 */
char *rmobike_standing_name(rmobike_standing_t standing)
{
	switch (standing)
	{
		case STANDING_ACTIVE:
			return "active";
		case STANDING_FROZEN:
			return "frozen";
		case STANDING_PASSIVE:
			return "passive";
		default:
			return "other";
	}
}

/**
 * Parse an SPI of exactly so many hexadecimal digits, to network order
 */
static bool parse_spi(char *str, size_t digits, uint64_t *spi)
{
	if (!str || strlen(str) != digits ||
		strspn(str, "0123456789abcdefABCDEF") != digits)
	{
		return FALSE;
	}
	*spi = htobe64(strtoull(str, NULL, 16));
	return TRUE;
}

/**
 * Check out an IKE_SA by its SPIs.  charon tells IKE_SAs that we initiated, or
 * rekeyed, from others.
 */
static ike_sa_t *checkout_by_spis(uint64_t initiator, uint64_t responder)
{
	ike_sa_t *ike_sa = NULL;
	ike_sa_id_t *id;
	int i;

	for (i = 0; i < 2 && !ike_sa; i++)
	{
		id = ike_sa_id_create(IKEV2_MAJOR_VERSION, initiator, responder, i);
		ike_sa = charon->ike_sa_manager->checkout(charon->ike_sa_manager, id);
		id->destroy(id);
	}
	return ike_sa;
}

/*
 * Described in header
 */
ike_sa_t *rmobike_standing_checkout(vici_message_t *request, bool *wrong)
{
	uint64_t initiator, responder;
	ike_sa_t *ike_sa;
	uint32_t id;
	char *str;

	*wrong = FALSE;
	str = request->get_str(request, NULL, "ike-id");
	if (str)
	{
		*wrong = !rmobike_parse_number(str, 1, UINT32_MAX, &id);
		ike_sa = *wrong ? NULL : charon->ike_sa_manager->checkout_by_id(
											charon->ike_sa_manager, id);
	}
	else
	{
		*wrong = !parse_spi(request->get_str(request, NULL, "spi-i"), 16,
							&initiator) || !initiator ||
				 !parse_spi(request->get_str(request, NULL, "spi-r"), 16,
							&responder) || !responder;
		ike_sa = *wrong ? NULL : checkout_by_spis(initiator, responder);
	}
	if (ike_sa && ike_sa->get_version(ike_sa) != IKEV2)
	{
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
		return NULL;
	}
	return ike_sa;
}

/**
 * Count the tasks in a queue
 */
static u_int count_tasks(ike_sa_t *ike_sa, task_queue_t queue)
{
	enumerator_t *enumerator;
	task_t *task;
	u_int count = 0;

	enumerator = ike_sa->create_task_enumerator(ike_sa, queue);
	while (enumerator->enumerate(enumerator, &task))
	{
		count++;
	}
	enumerator->destroy(enumerator);
	return count;
}

/**
 * Count the CHILD_SAs in a state
 */
static u_int count_children(ike_sa_t *ike_sa, child_sa_state_t state)
{
	enumerator_t *enumerator;
	child_sa_t *child_sa;
	u_int count = 0;

	enumerator = ike_sa->create_child_sa_enumerator(ike_sa);
	while (enumerator->enumerate(enumerator, &child_sa))
	{
		count += child_sa->get_state(child_sa) == state;
	}
	enumerator->destroy(enumerator);
	return count;
}

/**
 * Check if all CHILD_SAs are installed; one that got rekeyed and deleted is kept
 * for some seconds for packets that are late
 */
static bool are_installed(ike_sa_t *ike_sa)
{
	return count_children(ike_sa, CHILD_INSTALLED) +
		   count_children(ike_sa, CHILD_DELETED) ==
		   ike_sa->get_child_count(ike_sa);
}

/*
 * Described in header
 */
char *rmobike_standing_busy(ike_sa_t *ike_sa)
{
	switch (ike_sa->get_state(ike_sa))
	{
		case IKE_ESTABLISHED:
		case IKE_PASSIVE:
			break;
		default:
			return "the IKE_SA is being made, rekeyed or deleted";
	}
	if (count_tasks(ike_sa, TASK_QUEUE_ACTIVE))
	{
		return "a request of ours is not answered yet";
	}
	if (count_tasks(ike_sa, TASK_QUEUE_PASSIVE))
	{
		return "an exchange that the peer began is not over";
	}
	if (count_tasks(ike_sa, TASK_QUEUE_QUEUED))
	{
		return "a request of ours is to be sent";
	}
	if (!are_installed(ike_sa))
	{
		return "a CHILD_SA is being made, rekeyed or deleted";
	}
	return NULL;
}

/**
 * Check if an installed CHILD_SA with this inbound SPI is there
 */
static bool has_child(ike_sa_t *ike_sa, uint32_t spi)
{
	enumerator_t *enumerator;
	child_sa_t *child_sa;
	bool found = FALSE;

	enumerator = ike_sa->create_child_sa_enumerator(ike_sa);
	while (!found && enumerator->enumerate(enumerator, &child_sa))
	{
		found = child_sa->get_spi(child_sa, TRUE) == spi &&
				child_sa->get_state(child_sa) == CHILD_INSTALLED;
	}
	enumerator->destroy(enumerator);
	return found;
}

/*
 * Described in header
 */
bool rmobike_standing_has_children(ike_sa_t *ike_sa, vici_message_t *request)
{
	enumerator_t *enumerator;
	linked_list_t *items;
	uint64_t spi;
	char *str;
	bool good;

	items = rmobike_parse_list(request, "children");
	if (!items)
	{
		return FALSE;
	}
	good = !items->get_count(items) ||
		   items->get_count(items) == count_children(ike_sa, CHILD_INSTALLED);
	enumerator = items->create_enumerator(items);
	while (good && enumerator->enumerate(enumerator, &str))
	{
		/* the digits are the upper half of the number in network order */
		good = parse_spi(str, 8, &spi) &&
			   has_child(ike_sa, htonl(be64toh(spi)));
	}
	enumerator->destroy(enumerator);
	items->destroy_function(items, free);
	return good;
}

/**
 * Add the tasks in a queue to a message
 */
static void add_tasks(vici_builder_t *builder, ike_sa_t *ike_sa, char *name,
					  task_queue_t queue)
{
	enumerator_t *enumerator;
	task_t *task;

	builder->begin_list(builder, name);
	enumerator = ike_sa->create_task_enumerator(ike_sa, queue);
	while (enumerator->enumerate(enumerator, &task))
	{
		builder->add_li(builder, "%N", task_type_names, task->get_type(task));
	}
	enumerator->destroy(enumerator);
	builder->end_list(builder);
}

/**
 * Add the CHILD_SAs to a message
 */
static void add_children(vici_builder_t *builder, ike_sa_t *ike_sa)
{
	enumerator_t *enumerator;
	child_sa_t *child_sa;
	char section[16];

	builder->begin_section(builder, "children");
	enumerator = ike_sa->create_child_sa_enumerator(ike_sa);
	while (enumerator->enumerate(enumerator, &child_sa))
	{
		snprintf(section, sizeof(section), "%u",
				 child_sa->get_unique_id(child_sa));
		builder->begin_section(builder, section);
		builder->add_kv(builder, "name", "%s", child_sa->get_name(child_sa));
		builder->add_kv(builder, "state", "%N", child_sa_state_names,
						child_sa->get_state(child_sa));
		builder->add_kv(builder, "spi-in", "%.8x",
						ntohl(child_sa->get_spi(child_sa, TRUE)));
		builder->add_kv(builder, "spi-out", "%.8x",
						ntohl(child_sa->get_spi(child_sa, FALSE)));
		builder->end_section(builder);
	}
	enumerator->destroy(enumerator);
	builder->end_section(builder);
}

/**
 * Add a host to a message
 */
static void add_host(vici_builder_t *builder, char *name, host_t *host)
{
	char port[32];

	snprintf(port, sizeof(port), "%s-port", name);
	/* an IKE_SA that is just being imported has none yet, which %H prints as
	 * %any */
	builder->add_kv(builder, name, host->is_anyaddr(host) ? "0.0.0.0" : "%H",
					host);
	builder->add_kv(builder, port, "%u", host->get_port(host));
}

/**
 * Name a truth
 */
static char *yes(bool truth)
{
	return truth ? "yes" : "no";
}

/*
 * Described in header
 */
void rmobike_standing_describe(vici_builder_t *builder, ike_sa_t *ike_sa,
							   rmobike_standing_t standing, char *busy)
{
	ike_sa_id_t *id = ike_sa->get_id(ike_sa);

	builder->add_kv(builder, "ike-id", "%u", ike_sa->get_unique_id(ike_sa));
	builder->add_kv(builder, "name", "%s", ike_sa->get_name(ike_sa));
	builder->add_kv(builder, "standing", "%s", rmobike_standing_name(standing));
	builder->add_kv(builder, "state", "%N", ike_sa_state_names,
					ike_sa->get_state(ike_sa));
	builder->add_kv(builder, "spi-i", "%.16"PRIx64,
					be64toh(id->get_initiator_spi(id)));
	builder->add_kv(builder, "spi-r", "%.16"PRIx64,
					be64toh(id->get_responder_spi(id)));
	builder->add_kv(builder, "initiator", "%s",
			yes(ike_sa->has_condition(ike_sa, COND_ORIGINAL_INITIATOR)));
	builder->add_kv(builder, "mobike", "%s",
			yes(ike_sa->supports_extension(ike_sa, EXT_MOBIKE)));
	builder->add_kv(builder, "nat-local", "%s",
			yes(ike_sa->has_condition(ike_sa, COND_NAT_HERE)));
	builder->add_kv(builder, "nat-remote", "%s",
			yes(ike_sa->has_condition(ike_sa, COND_NAT_THERE)));
	builder->add_kv(builder, "mid-initiator", "%u",
					ike_sa->get_message_id(ike_sa, TRUE));
	builder->add_kv(builder, "mid-responder", "%u",
					ike_sa->get_message_id(ike_sa, FALSE));
	add_host(builder, "local", ike_sa->get_my_host(ike_sa));
	add_host(builder, "remote", ike_sa->get_other_host(ike_sa));
	builder->add_kv(builder, "busy", "%s", yes(busy != NULL));
	if (busy)
	{
		builder->add_kv(builder, "why-busy", "%s", busy);
	}
	add_tasks(builder, ike_sa, "tasks-active", TASK_QUEUE_ACTIVE);
	add_tasks(builder, ike_sa, "tasks-passive", TASK_QUEUE_PASSIVE);
	add_tasks(builder, ike_sa, "tasks-queued", TASK_QUEUE_QUEUED);
	add_children(builder, ike_sa);
}
