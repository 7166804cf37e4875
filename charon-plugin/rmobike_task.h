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

/**
 * @defgroup rmobike_task rmobike_task
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_TASK_H_
#define RMOBIKE_TASK_H_

#include <library.h>
#include <sa/ike_sa.h>
#include <sa/task.h>

#include "rmobike_peers.h"

typedef struct rmobike_exchange_t rmobike_exchange_t;
typedef struct rmobike_task_owner_t rmobike_task_owner_t;

/**
 * What an exchange is about, kept by its task.
 */
struct rmobike_exchange_t {

	/**
	 * Serial of the peer
	 */
	uint32_t serial;

	/**
	 * Generation of the switch, 0 for other exchanges
	 */
	u_int generation;

	/**
	 * Token given by the client
	 */
	char token[RMOBIKE_TOKEN_SIZE];
};

/**
 * Who wants to know how an exchange ends.
 */
struct rmobike_task_owner_t {

	/**
	 * A task that came to a new IKE_SA by a rekeying is to be dropped instead
	 * of being sent at once, as the peer may not know that IKE_SA yet
	 */
	bool renews;

	/**
	 * Asked before the request is built.
	 *
	 * @return			FALSE to cancel the exchange
	 */
	bool (*wanted)(rmobike_task_owner_t *this, rmobike_exchange_t *exchange);

	/**
	 * The response arrived.
	 */
	void (*answered)(rmobike_task_owner_t *this, rmobike_exchange_t *exchange,
					 ike_sa_t *ike_sa, message_t *response);

	/**
	 * The task was destroyed without having seen a response.
	 */
	void (*dropped)(rmobike_task_owner_t *this, rmobike_exchange_t *exchange);
};

/**
 * Create a task that sends notifies in an INFORMATIONAL exchange.
 *
 * @param exchange		what it is about, gets copied
 * @param notifies		list of rmobike_notify_t, gets adopted
 * @param owner			owner, outlives the task
 * @return				task to queue
 */
task_t *rmobike_task_create(rmobike_exchange_t *exchange,
							linked_list_t *notifies,
							rmobike_task_owner_t *owner);

/**
 * Queue a task on a checked out IKE_SA and have it initiated by a job.
 *
 * A job is used so that no message is built, and the IKE_SA not destroyed,
 * in the thread that calls this.
 *
 * @param ike_sa		checked out IKE_SA
 * @param task			task to queue
 */
void rmobike_task_queue(ike_sa_t *ike_sa, task_t *task);

/**
 * Check out the current IKE_SA of a peer if exchanges can be started on it.
 *
 * Follows a rekeying that completes while this waits for the IKE_SA.
 *
 * @param peers			known peers
 * @param serial		serial of the peer
 * @return				checked out IKE_SA, NULL if there is none
 */
ike_sa_t *rmobike_task_checkout(rmobike_peers_t *peers, uint32_t serial);

#endif /** RMOBIKE_TASK_H_ @}*/
