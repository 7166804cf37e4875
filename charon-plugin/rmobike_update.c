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

#include "rmobike_update.h"

#include <daemon.h>
#include <processing/jobs/callback_job.h>
#include <sa/ikev2/tasks/ike_dpd.h>

#include "rmobike_path.h"
#include "rmobike_task.h"

/**
 * Delay before an exchange is started because of a request, in ms: a
 * responder ignores a request with the message ID of the response it is just
 * processing, which would cost a retransmit.
 */
#define START_DELAY 20

typedef struct private_rmobike_update_t private_rmobike_update_t;

/**
 * Private data of an rmobike_update_t object.
 */
struct private_rmobike_update_t {

	/**
	 * Public interface
	 */
	rmobike_update_t public;

	/**
	 * Implements the interface to the tasks
	 */
	rmobike_path_owner_t owner;

	/**
	 * Raises events
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;
};

/**
 * For jobs; there is only one
 */
static private_rmobike_update_t *instance;

/**
 * Tell how an update ended
 */
static void conclude(private_rmobike_update_t *this, rmobike_path_t *path,
					 uint32_t id, ike_sa_t *ike_sa, char *failure)
{
	vici_builder_t *builder;

	builder = this->control->event(this->control, id);
	builder->add_kv(builder, "token", "%s", path->token);
	builder->add_kv(builder, "cause", "%s", path->cause);
	if (path->local)
	{
		builder->add_kv(builder, "wanted-local", "%H", path->local);
	}
	if (path->remote)
	{
		builder->add_kv(builder, "wanted-remote", "%H", path->remote);
	}
	if (ike_sa)
	{
		builder->add_kv(builder, "local", "%H", ike_sa->get_my_host(ike_sa));
		builder->add_kv(builder, "remote", "%H",
						ike_sa->get_other_host(ike_sa));
	}
	if (failure)
	{
		builder->add_kv(builder, "reason", "%s", failure);
	}
	this->control->raise(this->control,
						 failure ? "update-failed" : "update-done", 0, builder);
}

/**
 * Check if no newer update was asked for
 */
static bool is_newest(private_rmobike_update_t *this, rmobike_path_t *path)
{
	rmobike_peer_t *peer;
	bool newest = FALSE;

	peer = this->peers->lock_serial(this->peers, path->serial);
	if (peer)
	{
		newest = peer->update == path->generation;
		this->peers->unlock(this->peers);
	}
	return newest;
}

/**
 * Have the IKE_SA follow to the path that the peer was told on the rekeyed one
 */
static void follow(private_rmobike_update_t *this, rmobike_path_t *path)
{
	ike_sa_t *ike_sa;

	ike_sa = rmobike_task_checkout(this->peers, path->serial);
	if (ike_sa)
	{
		ike_sa->update_hosts(ike_sa, path->told_local, path->told_remote,
							 UPDATE_HOSTS_FORCE_ALL);
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	}
	path->told_local->destroy(path->told_local);
	path->told_remote->destroy(path->told_remote);
	path->told_local = path->told_remote = NULL;
}

/**
 * Job that starts an update
 */
static job_requeue_t start(rmobike_path_t **job)
{
	private_rmobike_update_t *this = instance;
	rmobike_path_t *path = *job;
	host_t *me, *other;
	ike_sa_t *ike_sa;
	char *failure = NULL;

	if (path->told_local && is_newest(this, path))
	{
		follow(this, path);
	}
	if (path->tries++ < RMOBIKE_SETTLE_TRIES &&
		this->peers->is_settling(this->peers, path->serial))
	{
		return JOB_RESCHEDULE_MS(RMOBIKE_SETTLE_DELAY);
	}
	ike_sa = rmobike_task_checkout(this->peers, path->serial);
	if (!ike_sa)
	{
		conclude(this, path, path->serial, NULL, "ike-sa-gone");
		return JOB_REQUEUE_NONE;
	}
	if (!is_newest(this, path))
	{
		failure = "superseded";
	}
	else if (!ike_sa->supports_extension(ike_sa, EXT_MOBIKE) ||
		!ike_sa->has_condition(ike_sa, COND_ORIGINAL_INITIATOR))
	{
		failure = "no-mobike";
	}
	else if (!rmobike_path_resolve(path, ike_sa, &me, &other))
	{
		failure = "no-route";
	}
	else
	{
		DBG1(DBG_IKE, "starting MOBIKE update of IKE_SA %s[%u] to %#H - %#H",
			 ike_sa->get_name(ike_sa), ike_sa->get_unique_id(ike_sa), me,
			 other);
		me->destroy(me);
		other->destroy(other);
		*job = NULL;
		rmobike_path_update(path, ike_sa);
	}
	if (failure)
	{
		conclude(this, path, ike_sa->get_unique_id(ike_sa), ike_sa, failure);
	}
	charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	return JOB_REQUEUE_NONE;
}

/**
 * Destroy a job's data; the update belongs to its task once that is queued
 */
static void start_cleanup(rmobike_path_t **job)
{
	if (*job)
	{
		rmobike_path_destroy(*job);
	}
	free(job);
}

/**
 * Schedule a job that starts an update, or continues one on another IKE_SA
 */
static void start_later(private_rmobike_update_t *this, rmobike_path_t *path)
{
	rmobike_path_t **job;

	path->tries = 0;
	job = malloc_thing(rmobike_path_t*);
	*job = path;
	lib->scheduler->schedule_job_ms(lib->scheduler,
			(job_t*)callback_job_create((void*)start, job,
										(void*)start_cleanup, NULL),
			path->told_local ? 0 : START_DELAY);
}

/**
 * Implements rmobike_path_owner_t.ended
 */
static void ended(rmobike_path_owner_t *owner, rmobike_path_t *path,
				  uint32_t id, ike_sa_t *ike_sa, char *failure)
{
	conclude(instance, path, id, ike_sa, failure);
}

/**
 * Implements rmobike_path_owner_t.again
 */
static void again(rmobike_path_owner_t *owner, rmobike_path_t *path)
{
	start_later(instance, path);
}

METHOD(rmobike_update_t, schedule, void,
	private_rmobike_update_t *this, uint32_t serial, host_t *local,
	host_t *remote, char *token, char *cause)
{
	rmobike_peer_t *peer;
	rmobike_path_t *path;
	u_int generation = 0;

	peer = this->peers->lock_serial(this->peers, serial);
	if (peer)
	{
		generation = ++peer->update;
		this->peers->unlock(this->peers);
	}
	INIT(path,
		.serial = serial,
		.generation = generation,
		.local = local ? local->clone(local) : NULL,
		.remote = remote ? remote->clone(remote) : NULL,
		.cause = cause,
	);
	memcpy(path->token, token, RMOBIKE_TOKEN_SIZE);
	start_later(this, path);
}

/**
 * Job that starts a liveness check
 */
static job_requeue_t liveness(uint32_t *serial)
{
	ike_sa_t *ike_sa;

	ike_sa = rmobike_task_checkout(instance->peers, *serial);
	if (ike_sa)
	{
		rmobike_task_queue(ike_sa, (task_t*)ike_dpd_create(TRUE));
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	}
	return JOB_REQUEUE_NONE;
}

METHOD(rmobike_update_t, check_liveness, void,
	private_rmobike_update_t *this, uint32_t serial)
{
	uint32_t *data;

	data = malloc_thing(uint32_t);
	*data = serial;
	lib->scheduler->schedule_job_ms(lib->scheduler,
			(job_t*)callback_job_create((void*)liveness, data, free, NULL),
			START_DELAY);
}

METHOD(rmobike_update_t, destroy, void,
	private_rmobike_update_t *this)
{
	rmobike_path_deinit();
	instance = NULL;
	free(this);
}

/*
 * Described in header
 */
rmobike_update_t *rmobike_update_create(rmobike_control_t *control,
										rmobike_peers_t *peers)
{
	private_rmobike_update_t *this;

	INIT(this,
		.public = {
			.schedule = _schedule,
			.check_liveness = _check_liveness,
			.destroy = _destroy,
		},
		.owner = {
			.ended = ended,
			.again = again,
		},
		.control = control,
		.peers = peers,
	);
	control->add_event(control, "update-done");
	control->add_event(control, "update-failed");
	rmobike_path_init(peers, &this->owner);
	instance = this;

	return &this->public;
}
