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
#include <threading/mutex.h>
#include <collections/hashtable.h>
#include <processing/jobs/callback_job.h>
#include <sa/ikev2/tasks/ike_dpd.h>
#include <sa/ikev2/tasks/ike_mobike.h>

#include "rmobike_task.h"

/**
 * Delay before an exchange is started because of a request, in ms: a
 * responder ignores a request with the message ID of the response it is just
 * processing, which would cost a retransmit.
 */
#define START_DELAY 20

/**
 * Probes that go to the wanted path only
 */
#define EXCLUSIVE_PROBES 2

/**
 * Probes that go to the wanted and the current path, before all others are
 * tried too, of which the first that answers would win
 */
#define CURRENT_PROBES 2

/**
 * How often an update is started anew on the IKE_SA that replaced its own
 */
#define MAX_ATTEMPTS 5

typedef struct private_rmobike_update_t private_rmobike_update_t;
typedef struct update_t update_t;

/**
 * Private data of an rmobike_update_t object.
 */
struct private_rmobike_update_t {

	/**
	 * Public interface
	 */
	rmobike_update_t public;

	/**
	 * Raises events
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;

	/**
	 * Updates by the MOBIKE task they use, ike_mobike_t => update_t
	 */
	hashtable_t *updates;

	/**
	 * Leaf mutex for the above
	 */
	mutex_t *mutex;
};

/**
 * An update.  While its task exists it is accessed only by the thread that has
 * the IKE_SA checked out.
 */
struct update_t {

	/**
	 * Serial of the peer
	 */
	uint32_t serial;

	/**
	 * Generation of the update, an older one must not undo a newer one
	 */
	u_int generation;

	/**
	 * Wanted addresses, without ports, either may be NULL
	 */
	host_t *local;
	host_t *remote;

	/**
	 * Token and cause, for events
	 */
	char token[RMOBIKE_TOKEN_SIZE];
	char *cause;

	/**
	 * Times it was started
	 */
	u_int attempts;

	/**
	 * Times it was put off because of a rekeying
	 */
	u_int tries;

	/**
	 * Its task came to another IKE_SA by a rekeying
	 */
	bool migrated;

	/**
	 * Path that the peer was told on the IKE_SA that got rekeyed, or NULL
	 */
	host_t *told_local;
	host_t *told_remote;

	/**
	 * Transmissions while probing
	 */
	u_int probes;

	/**
	 * An event told how it ended
	 */
	bool over;

	/**
	 * Original methods of the task
	 */
	bool (*transmit)(ike_mobike_t *this, packet_t *packet);
	status_t (*build)(task_t *this, message_t *message);
	status_t (*process)(task_t *this, message_t *message);
	void (*migrate)(task_t *this, ike_sa_t *ike_sa);
	void (*destroy)(task_t *this);
};

/**
 * The methods of a wrapped task get nothing but the task
 */
static private_rmobike_update_t *instance;

/**
 * Destroy an update
 */
static void update_destroy(update_t *update)
{
	DESTROY_IF(update->local);
	DESTROY_IF(update->remote);
	DESTROY_IF(update->told_local);
	DESTROY_IF(update->told_remote);
	free(update);
}

/**
 * Tell how an update ended
 */
static void conclude(private_rmobike_update_t *this, update_t *update,
					 uint32_t id, ike_sa_t *ike_sa, char *failure)
{
	vici_builder_t *builder;

	update->over = TRUE;
	builder = this->control->event(this->control, id);
	builder->add_kv(builder, "token", "%s", update->token);
	builder->add_kv(builder, "cause", "%s", update->cause);
	if (update->local)
	{
		builder->add_kv(builder, "wanted-local", "%H", update->local);
	}
	if (update->remote)
	{
		builder->add_kv(builder, "wanted-remote", "%H", update->remote);
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
 * Get the update of a wrapped task
 */
static update_t *update_of(void *task, bool remove)
{
	update_t *update;

	instance->mutex->lock(instance->mutex);
	update = remove ? instance->updates->remove(instance->updates, task)
					: instance->updates->get(instance->updates, task);
	instance->mutex->unlock(instance->mutex);
	return update;
}

/**
 * Check if an IKE_SA uses the wanted path
 */
static bool is_there(update_t *update, ike_sa_t *ike_sa)
{
	host_t *me, *other;

	me = ike_sa->get_my_host(ike_sa);
	other = ike_sa->get_other_host(ike_sa);
	return (!update->local || me->ip_equals(me, update->local)) &&
		   (!update->remote || other->ip_equals(other, update->remote));
}

/**
 * Get the wanted path with ports, FALSE if there is no route
 */
static bool get_path(update_t *update, ike_sa_t *ike_sa, host_t **me,
					 host_t **other)
{
	host_t *me_old, *other_old, *wanted;

	me_old = ike_sa->get_my_host(ike_sa);
	other_old = ike_sa->get_other_host(ike_sa);

	*other = update->remote ?: other_old;
	wanted = update->local ?: me_old;
	if (wanted->get_family(wanted) != (*other)->get_family(*other))
	{
		if (update->local)
		{
			return FALSE;
		}
		wanted = NULL;
	}
	*me = charon->kernel->get_source_addr(charon->kernel, *other, wanted);
	if (!*me)
	{
		return FALSE;
	}
	if (update->local && !update->local->ip_equals(update->local, *me))
	{
		(*me)->destroy(*me);
		return FALSE;
	}
	*other = (*other)->clone(*other);
	(*me)->set_port(*me, me_old->get_port(me_old));
	(*other)->set_port(*other, other_old->get_port(other_old));
	return TRUE;
}

/**
 * Send a copy of a packet on a path, whose addresses are adopted
 */
static void send_on(packet_t *packet, host_t *me, host_t *other)
{
	packet_t *copy;

	copy = packet->clone(packet);
	copy->set_source(copy, me);
	copy->set_destination(copy, other);
	charon->sender->send(charon->sender, copy);
}

/**
 * Replaces ike_mobike_t.transmit
 */
static bool transmit(ike_mobike_t *mobike, packet_t *packet)
{
	update_t *update = update_of(mobike, FALSE);
	ike_sa_t *ike_sa = charon->bus->get_sa(charon->bus);
	host_t *me, *other;

	if (!mobike->is_probing(mobike))
	{
		return update->transmit(mobike, packet);
	}
	if (!get_path(update, ike_sa, &me, &other))
	{
		return update->transmit(mobike, packet);
	}
	DBG1(DBG_IKE, "checking wanted path %#H - %#H", me, other);
	send_on(packet, me, other);
	if (update->probes >= EXCLUSIVE_PROBES + CURRENT_PROBES)
	{
		update->transmit(mobike, packet);
	}
	else if (update->probes >= EXCLUSIVE_PROBES)
	{
		me = ike_sa->get_my_host(ike_sa);
		other = ike_sa->get_other_host(ike_sa);
		DBG1(DBG_IKE, "checking current path %#H - %#H", me, other);
		send_on(packet, me->clone(me), other->clone(other));
	}
	update->probes++;
	return TRUE;
}

/**
 * Check if a MOBIKE task is queued that comes after the current one
 */
static bool is_superseded(ike_sa_t *ike_sa)
{
	enumerator_t *enumerator;
	task_t *task;
	bool found = FALSE;

	enumerator = ike_sa->create_task_enumerator(ike_sa, TASK_QUEUE_QUEUED);
	while (!found && enumerator->enumerate(enumerator, &task))
	{
		found = task->get_type(task) == TASK_IKE_MOBIKE;
	}
	enumerator->destroy(enumerator);
	return found;
}

/**
 * Check if the peer may not know the path that its IKE_SA uses here
 */
static bool is_unsure(update_t *update)
{
	rmobike_peer_t *peer;
	bool unsure = FALSE;

	peer = instance->peers->lock_serial(instance->peers, update->serial);
	if (peer)
	{
		unsure = peer->unsure;
		instance->peers->unlock(instance->peers);
	}
	return unsure;
}

/**
 * Check if an IKE_SA is the current one of its peer, the one an update has to
 * be completed on
 *
 * @param told			the peer answered UPDATE_SA_ADDRESSES, no probe
 */
static bool is_current(update_t *update, ike_sa_t *ike_sa, bool told)
{
	rmobike_peer_t *peer;
	bool current = TRUE;

	peer = instance->peers->lock_serial(instance->peers, update->serial);
	if (peer)
	{
		current = peer->id == ike_sa->get_unique_id(ike_sa);
		peer->unsure = !current || (peer->unsure && !told);
		instance->peers->unlock(instance->peers);
	}
	return current;
}

/**
 * Let the task take the answer to a probe for one from another path than the
 * one in use, so that it sends an update in any case: charon itself sends none
 * if the new IKE_SA is on the path already, which it inherited
 */
static status_t process_unsure(update_t *update, ike_sa_t *ike_sa,
							   task_t *task, message_t *message)
{
	host_t *used, *other;
	status_t status;

	used = ike_sa->get_other_host(ike_sa);
	used = used->clone(used);
	other = used->clone(used);
	other->set_port(other, 0);
	ike_sa->set_other_host(ike_sa, other);

	status = update->process(task, message);

	other = ike_sa->get_other_host(ike_sa);
	if (other->get_port(other) == 0)
	{
		ike_sa->set_other_host(ike_sa, used);
	}
	else
	{
		used->destroy(used);
	}
	return status;
}

/**
 * Replaces task_t.build
 */
static status_t build(task_t *task, message_t *message)
{
	update_t *update = update_of(task, FALSE);
	status_t status;

	if (update->migrated)
	{	/* the peer may not know this IKE_SA yet: started anew a bit later */
		message->set_exchange_type(message, EXCHANGE_TYPE_UNDEFINED);
		return SUCCESS;
	}
	/* the task may put another method in the place of its own */
	task->build = update->build;
	status = task->build(task, message);
	update->build = task->build;
	task->build = build;
	return status;
}

/**
 * Replaces task_t.migrate
 */
static void migrate(task_t *task, ike_sa_t *ike_sa)
{
	update_t *update = update_of(task, FALSE);

	update->migrate(task, ike_sa);
	update->build = task->build;
	update->migrated = TRUE;
	task->build = build;
}

/**
 * Remember what the peer was told on an IKE_SA that got rekeyed.  As it
 * answered before it deleted that, it had not completed the rekeying, and so
 * its new IKE_SA inherited this path.
 */
static void remember_told(update_t *update, ike_sa_t *ike_sa)
{
	host_t *me = ike_sa->get_my_host(ike_sa);
	host_t *other = ike_sa->get_other_host(ike_sa);

	DESTROY_IF(update->told_local);
	DESTROY_IF(update->told_remote);
	update->told_local = me->clone(me);
	update->told_remote = other->clone(other);
}

/**
 * Replaces task_t.process
 */
static status_t process(task_t *task, message_t *message)
{
	update_t *update = update_of(task, FALSE);
	ike_mobike_t *mobike = (ike_mobike_t*)task;
	ike_sa_t *ike_sa = charon->bus->get_sa(charon->bus);
	bool probing = mobike->is_probing(mobike);
	status_t status;

	if (probing && is_unsure(update))
	{
		status = process_unsure(update, ike_sa, task, message);
	}
	else
	{
		status = update->process(task, message);
	}
	if (status != SUCCESS)
	{
		return status;
	}
	if (!is_current(update, ike_sa, !probing))
	{	/* not over: it gets started anew when the task goes */
		if (!probing)
		{
			remember_told(update, ike_sa);
		}
	}
	else
	{
		conclude(instance, update, ike_sa->get_unique_id(ike_sa), ike_sa,
				 is_there(update, ike_sa) ? NULL :
				 is_superseded(ike_sa) ? "superseded" : "no-answer");
	}
	return status;
}

static void start_later(private_rmobike_update_t *this, update_t *update);

/**
 * Check if an update can be started anew on the IKE_SA that replaced its own,
 * return the reason if not
 */
static char *renew(update_t *update)
{
	rmobike_peer_t *peer;

	peer = instance->peers->lock_serial(instance->peers, update->serial);
	if (!peer)
	{
		return "ike-sa-gone";
	}
	peer->unsure = TRUE;
	instance->peers->unlock(instance->peers);
	return update->attempts < MAX_ATTEMPTS ? NULL : "ike-sa-replaced";
}

/**
 * Replaces task_t.destroy
 */
static void destroy_task(task_t *task)
{
	update_t *update = update_of(task, TRUE);
	char *failure;

	update->destroy(task);
	if (!update->over)
	{
		failure = renew(update);
		if (!failure)
		{
			start_later(instance, update);
			return;
		}
		conclude(instance, update, update->serial, NULL, failure);
	}
	update_destroy(update);
}

/**
 * Start an update on a checked out IKE_SA
 */
static void start_on(private_rmobike_update_t *this, update_t *update,
					 ike_sa_t *ike_sa)
{
	ike_mobike_t *mobike;

	mobike = ike_mobike_create(ike_sa, TRUE);
	mobike->roam(mobike, FALSE);
	update->attempts++;
	update->probes = 0;
	update->transmit = mobike->transmit;
	update->migrated = FALSE;
	update->build = mobike->task.build;
	update->process = mobike->task.process;
	update->migrate = mobike->task.migrate;
	update->destroy = mobike->task.destroy;
	mobike->transmit = transmit;
	mobike->task.build = build;
	mobike->task.process = process;
	mobike->task.migrate = migrate;
	mobike->task.destroy = destroy_task;

	this->mutex->lock(this->mutex);
	this->updates->put(this->updates, mobike, update);
	this->mutex->unlock(this->mutex);

	rmobike_task_queue(ike_sa, &mobike->task);
}

/**
 * Check if no newer update was asked for
 */
static bool is_newest(private_rmobike_update_t *this, update_t *update)
{
	rmobike_peer_t *peer;
	bool newest = FALSE;

	peer = this->peers->lock_serial(this->peers, update->serial);
	if (peer)
	{
		newest = peer->update == update->generation;
		this->peers->unlock(this->peers);
	}
	return newest;
}

/**
 * Have the IKE_SA follow to the path that the peer was told on the rekeyed one
 */
static void follow(private_rmobike_update_t *this, update_t *update)
{
	ike_sa_t *ike_sa;

	ike_sa = rmobike_task_checkout(this->peers, update->serial);
	if (ike_sa)
	{
		ike_sa->update_hosts(ike_sa, update->told_local, update->told_remote,
							 UPDATE_HOSTS_FORCE_ALL);
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	}
	update->told_local->destroy(update->told_local);
	update->told_remote->destroy(update->told_remote);
	update->told_local = update->told_remote = NULL;
}

/**
 * Job that starts an update
 */
static job_requeue_t start(update_t **job)
{
	private_rmobike_update_t *this = instance;
	update_t *update = *job;
	host_t *me, *other;
	ike_sa_t *ike_sa;
	char *failure = NULL;

	if (update->told_local)
	{
		follow(this, update);
	}
	if (update->tries++ < RMOBIKE_SETTLE_TRIES &&
		this->peers->is_settling(this->peers, update->serial))
	{
		return JOB_RESCHEDULE_MS(RMOBIKE_SETTLE_DELAY);
	}
	ike_sa = rmobike_task_checkout(this->peers, update->serial);
	if (!ike_sa)
	{
		conclude(this, update, update->serial, NULL, "ike-sa-gone");
		return JOB_REQUEUE_NONE;
	}
	if (!is_newest(this, update))
	{
		failure = "superseded";
	}
	else if (!ike_sa->supports_extension(ike_sa, EXT_MOBIKE) ||
		!ike_sa->has_condition(ike_sa, COND_ORIGINAL_INITIATOR))
	{
		failure = "no-mobike";
	}
	else if (!get_path(update, ike_sa, &me, &other))
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
		start_on(this, update, ike_sa);
	}
	if (failure)
	{
		conclude(this, update, ike_sa->get_unique_id(ike_sa), ike_sa, failure);
	}
	charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	return JOB_REQUEUE_NONE;
}

/**
 * Destroy a job's data; the update belongs to its task once that is queued
 */
static void start_cleanup(update_t **job)
{
	if (*job)
	{
		update_destroy(*job);
	}
	free(job);
}

/**
 * Schedule a job that starts an update, or continues one on another IKE_SA
 */
static void start_later(private_rmobike_update_t *this, update_t *update)
{
	update_t **job;

	update->tries = 0;
	job = malloc_thing(update_t*);
	*job = update;
	lib->scheduler->schedule_job_ms(lib->scheduler,
			(job_t*)callback_job_create((void*)start, job,
										(void*)start_cleanup, NULL),
			update->told_local ? 0 : START_DELAY);
}

METHOD(rmobike_update_t, schedule, void,
	private_rmobike_update_t *this, uint32_t serial, host_t *local,
	host_t *remote, char *token, char *cause)
{
	rmobike_peer_t *peer;
	update_t *update;
	u_int generation = 0;

	peer = this->peers->lock_serial(this->peers, serial);
	if (peer)
	{
		generation = ++peer->update;
		this->peers->unlock(this->peers);
	}
	INIT(update,
		.serial = serial,
		.generation = generation,
		.local = local ? local->clone(local) : NULL,
		.remote = remote ? remote->clone(remote) : NULL,
		.cause = cause,
	);
	memcpy(update->token, token, RMOBIKE_TOKEN_SIZE);
	start_later(this, update);
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
	instance = NULL;
	this->updates->destroy(this->updates);
	this->mutex->destroy(this->mutex);
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
		.control = control,
		.peers = peers,
		.updates = hashtable_create(hashtable_hash_ptr, hashtable_equals_ptr,
									8),
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);
	control->add_event(control, "update-done");
	control->add_event(control, "update-failed");
	instance = this;

	return &this->public;
}
