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

#include "rmobike_task.h"

#include <daemon.h>
#include <processing/jobs/initiate_tasks_job.h>

/**
 * How many rekeyings are followed while waiting for an IKE_SA
 */
#define MAX_REKEYINGS 3

typedef struct private_task_t private_task_t;

/**
 * A task that sends notifies.
 */
struct private_task_t {

	/**
	 * Public interface
	 */
	task_t public;

	/**
	 * What the exchange is about
	 */
	rmobike_exchange_t exchange;

	/**
	 * Notifies to send, rmobike_notify_t
	 */
	linked_list_t *notifies;

	/**
	 * Who wants to know
	 */
	rmobike_task_owner_t *owner;

	/**
	 * The exchange ended, or was canceled by the owner
	 */
	bool over;

	/**
	 * Came to another IKE_SA by a rekeying
	 */
	bool migrated;
};

METHOD(task_t, build, status_t,
	private_task_t *this, message_t *message)
{
	enumerator_t *enumerator;
	rmobike_notify_t *notify;

	this->over = !this->owner->wanted(this->owner, &this->exchange);
	if (this->over || (this->migrated && this->owner->renews))
	{
		message->set_exchange_type(message, EXCHANGE_TYPE_UNDEFINED);
		return SUCCESS;
	}
	enumerator = this->notifies->create_enumerator(this->notifies);
	while (enumerator->enumerate(enumerator, &notify))
	{
		message->add_notify(message, FALSE, notify->type, notify->data);
	}
	enumerator->destroy(enumerator);
	return NEED_MORE;
}

METHOD(task_t, process, status_t,
	private_task_t *this, message_t *message)
{
	this->over = TRUE;
	this->owner->answered(this->owner, &this->exchange,
						  charon->bus->get_sa(charon->bus), message);
	return SUCCESS;
}

METHOD(task_t, get_type, task_type_t,
	private_task_t *this)
{
	/* the task manager sends tasks of this type in an INFORMATIONAL of their
	 * own and never looks into them, as opposed to e.g. TASK_IKE_MOBIKE */
	return TASK_IKE_REDIRECT;
}

METHOD(task_t, migrate, void,
	private_task_t *this, ike_sa_t *ike_sa)
{
	this->migrated = TRUE;
}

METHOD(task_t, destroy, void,
	private_task_t *this)
{
	if (!this->over)
	{
		this->owner->dropped(this->owner, &this->exchange);
	}
	this->notifies->destroy_function(this->notifies,
									 (void*)rmobike_notify_destroy);
	free(this);
}

/*
 * Described in header
 */
task_t *rmobike_task_create(rmobike_exchange_t *exchange,
							linked_list_t *notifies,
							rmobike_task_owner_t *owner)
{
	private_task_t *this;

	INIT(this,
		.public = {
			.build = _build,
			.process = _process,
			.get_type = _get_type,
			.migrate = _migrate,
			.destroy = _destroy,
		},
		.exchange = *exchange,
		.notifies = notifies,
		.owner = owner,
	);

	return &this->public;
}

/*
 * Described in header
 */
void rmobike_task_queue(ike_sa_t *ike_sa, task_t *task)
{
	ike_sa->queue_task(ike_sa, task);
	lib->processor->queue_job(lib->processor,
			(job_t*)initiate_tasks_job_create(ike_sa->get_id(ike_sa)));
}

/*
 * Described in header
 */
ike_sa_t *rmobike_task_checkout(rmobike_peers_t *peers, uint32_t serial)
{
	rmobike_peer_t *peer;
	ike_sa_t *ike_sa;
	uint32_t id, last = 0;
	int i;

	for (i = 0; i < MAX_REKEYINGS; i++)
	{
		peer = peers->lock_serial(peers, serial);
		if (!peer)
		{
			break;
		}
		id = peer->id;
		peers->unlock(peers);
		if (id == last)
		{
			break;
		}
		last = id;
		ike_sa = charon->ike_sa_manager->checkout_by_id(
										charon->ike_sa_manager, id);
		if (ike_sa)
		{
			switch (ike_sa->get_state(ike_sa))
			{
				case IKE_ESTABLISHED:
				case IKE_REKEYING:
					return ike_sa;
				default:
					break;
			}
			charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
		}
	}
	return NULL;
}
