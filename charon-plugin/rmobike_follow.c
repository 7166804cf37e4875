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

#include "rmobike_follow.h"

#include <daemon.h>
#include <processing/jobs/callback_job.h>
#include <processing/jobs/initiate_tasks_job.h>
#include <sa/ikev2/tasks/child_create.h>
#include <sa/redirect_manager.h>

/**
 * Delay until the IKE_SA is expected to be established, in ms; the job waits
 * for the thread that processes the response anyway
 */
#define FOLLOW_DELAY 20

/**
 * A redirect to follow
 */
typedef struct {
	/** unique ID of the IKE_SA */
	uint32_t id;
	/** where to */
	identification_t *gateway;
	/** CHILD_SAs to create there, child_cfg_t */
	linked_list_t *children;
} follow_t;

/**
 * Destroy a redirect to follow
 */
static void follow_destroy(follow_t *this)
{
	this->gateway->destroy(this->gateway);
	this->children->destroy_offset(this->children,
								   offsetof(child_cfg_t, destroy));
	free(this);
}

/**
 * Create a task that creates a CHILD_SA
 */
static task_t *create_child(ike_sa_t *ike_sa, child_cfg_t *cfg)
{
#ifdef CHILD_CREATE_HAS_SEQ
	return (task_t*)child_create_create(ike_sa, cfg, FALSE, NULL, NULL, 0);
#else
	return (task_t*)child_create_create(ike_sa, cfg, FALSE, NULL, NULL);
#endif
}

/**
 * Job that follows a redirect
 */
static job_requeue_t follow(follow_t *this)
{
	child_cfg_t *cfg;
	ike_sa_t *ike_sa;

	ike_sa = charon->ike_sa_manager->checkout_by_id(charon->ike_sa_manager,
													this->id);
	if (!ike_sa)
	{
		return JOB_REQUEUE_NONE;
	}
	if (ike_sa->get_state(ike_sa) == IKE_ESTABLISHED)
	{
		/* the new IKE_SA adopts these; if there will be none, they are
		 * created on this one */
		while (this->children->remove_first(this->children,
											(void**)&cfg) == SUCCESS)
		{
			ike_sa->queue_task(ike_sa, create_child(ike_sa, cfg));
		}
		if (!ike_sa->handle_redirect(ike_sa, this->gateway))
		{
			lib->processor->queue_job(lib->processor,
				(job_t*)initiate_tasks_job_create(ike_sa->get_id(ike_sa)));
		}
	}
	else
	{
		DBG1(DBG_IKE, "ignoring REDIRECT in IKE_AUTH, IKE_SA %s[%u] is not "
			 "established", ike_sa->get_name(ike_sa), this->id);
	}
	charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	return JOB_REQUEUE_NONE;
}

/**
 * Take all REDIRECT notifies out of a message
 *
 * @return				where to, NULL if there is no valid one
 */
static identification_t *take_gateway(message_t *message)
{
	identification_t *gateway = NULL;
	enumerator_t *enumerator;
	notify_payload_t *notify;
	payload_t *payload;

	enumerator = message->create_payload_enumerator(message);
	while (enumerator->enumerate(enumerator, &payload))
	{
		notify = (notify_payload_t*)payload;
		if (payload->get_type(payload) != PLV2_NOTIFY ||
			notify->get_notify_type(notify) != REDIRECT)
		{
			continue;
		}
		if (!gateway)
		{
			gateway = redirect_data_parse(
								notify->get_notification_data(notify), NULL);
		}
		message->remove_payload_at(message, enumerator);
		payload->destroy(payload);
	}
	enumerator->destroy(enumerator);
	return gateway;
}

/*
 * Described in header
 */
void rmobike_follow_redirect(ike_sa_t *ike_sa, message_t *message)
{
	identification_t *gateway;
	enumerator_t *enumerator;
	child_sa_t *child_sa;
	child_cfg_t *cfg;
	follow_t *data;
	task_t *task;

	gateway = take_gateway(message);
	if (!gateway)
	{
		return;
	}
	INIT(data,
		.id = ike_sa->get_unique_id(ike_sa),
		.gateway = gateway,
		.children = linked_list_create(),
	);
	enumerator = ike_sa->create_task_enumerator(ike_sa, TASK_QUEUE_ACTIVE);
	while (enumerator->enumerate(enumerator, &task))
	{
		if (task->get_type(task) == TASK_CHILD_CREATE)
		{
			child_sa = ((child_create_t*)task)->get_child(
														(child_create_t*)task);
			if (child_sa)
			{
				cfg = child_sa->get_config(child_sa);
				data->children->insert_last(data->children, cfg->get_ref(cfg));
			}
		}
	}
	enumerator->destroy(enumerator);

	lib->scheduler->schedule_job_ms(lib->scheduler,
			(job_t*)callback_job_create((void*)follow, data,
										(void*)follow_destroy, NULL),
			FOLLOW_DELAY);
}
