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

#include "rmobike_path.h"

#include <daemon.h>
#include <threading/mutex.h>
#include <collections/hashtable.h>
#include <processing/jobs/callback_job.h>
#include <sa/ikev2/tasks/ike_mobike.h>

#include "rmobike_task.h"

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
 * The first probe is sent again after this time, in ms, then after twice that,
 * and so on up to the last: a node that is just taking over the IKE_SA does not
 * answer before, and charon itself waits for 2.5 seconds
 */
#define FIRST_REPEAT 50
#define LAST_REPEAT 800

/**
 * How often an update is started anew on the IKE_SA that replaced its own
 */
#define MAX_ATTEMPTS 5

typedef struct update_t update_t;

/**
 * A MOBIKE task of charon whose methods are replaced by ours
 */
struct update_t {

	/**
	 * Path it is to lead to
	 */
	rmobike_path_t *path;

	/**
	 * Number of its own
	 */
	u_int number;

	/**
	 * No probe was answered yet, locked by the mutex
	 */
	bool unanswered;

	/**
	 * Its task came to another IKE_SA by a rekeying
	 */
	bool migrated;

	/**
	 * Transmissions while probing
	 */
	u_int probes;

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
static struct {

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;

	/**
	 * Who wants to know
	 */
	rmobike_path_owner_t *owner;

	/**
	 * Updates by the MOBIKE task they use, ike_mobike_t => update_t
	 */
	hashtable_t *updates;

	/**
	 * Last number used
	 */
	u_int numbers;

	/**
	 * Leaf mutex for the above
	 */
	mutex_t *mutex;
} global;

/**
 * A probe that is sent again
 */
typedef struct {

	/** update it belongs to */
	u_int number;

	/** packet, with its path */
	packet_t *packet;

	/** time until it is sent next, in ms */
	u_int delay;
} repeat_t;

/*
 * Described in header
 */
void rmobike_path_destroy(rmobike_path_t *this)
{
	DESTROY_IF(this->local);
	DESTROY_IF(this->remote);
	DESTROY_IF(this->told_local);
	DESTROY_IF(this->told_remote);
	free(this);
}

/**
 * Get the update of a wrapped task
 */
static update_t *update_of(void *task, bool remove)
{
	update_t *update;

	global.mutex->lock(global.mutex);
	update = remove ? global.updates->remove(global.updates, task)
					: global.updates->get(global.updates, task);
	global.mutex->unlock(global.mutex);
	return update;
}

/**
 * Tell the owner how an update ended
 */
static void ended(rmobike_path_t *path, uint32_t id, ike_sa_t *ike_sa,
				  char *failure)
{
	path->over = TRUE;
	global.owner->ended(global.owner, path, id, ike_sa, failure);
}

/**
 * Check if an IKE_SA uses the wanted path
 */
static bool is_there(rmobike_path_t *path, ike_sa_t *ike_sa)
{
	host_t *me, *other;

	me = ike_sa->get_my_host(ike_sa);
	other = ike_sa->get_other_host(ike_sa);
	return (!path->local || me->ip_equals(me, path->local)) &&
		   (!path->remote || other->ip_equals(other, path->remote));
}

/*
 * Described in header
 */
bool rmobike_path_resolve(rmobike_path_t *this, ike_sa_t *ike_sa, host_t **me,
						  host_t **other)
{
	host_t *me_old, *other_old, *wanted;

	me_old = ike_sa->get_my_host(ike_sa);
	other_old = ike_sa->get_other_host(ike_sa);

	*other = this->remote ?: other_old;
	wanted = this->local ?: me_old;
	if (wanted->get_family(wanted) != (*other)->get_family(*other))
	{
		if (this->local)
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
	if (this->local && !this->local->ip_equals(this->local, *me))
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
 * Check if an update still waits for the answer to a probe
 */
static bool is_unanswered(u_int number)
{
	enumerator_t *enumerator;
	update_t *update;
	bool unanswered = FALSE;

	global.mutex->lock(global.mutex);
	enumerator = global.updates->create_enumerator(global.updates);
	while (!unanswered && enumerator->enumerate(enumerator, NULL, &update))
	{
		unanswered = update->number == number && update->unanswered;
	}
	enumerator->destroy(enumerator);
	global.mutex->unlock(global.mutex);
	return unanswered;
}

/**
 * Note that a probe of an update was answered
 */
static void note_answered(update_t *update)
{
	global.mutex->lock(global.mutex);
	update->unanswered = FALSE;
	global.mutex->unlock(global.mutex);
}

/**
 * Job that sends a probe again
 */
static job_requeue_t repeat(repeat_t *data)
{
	if (!is_unanswered(data->number))
	{
		return JOB_REQUEUE_NONE;
	}
	charon->sender->send(charon->sender, data->packet->clone(data->packet));
	data->delay *= 2;
	return data->delay > LAST_REPEAT ? JOB_REQUEUE_NONE
									 : JOB_RESCHEDULE_MS(data->delay);
}

/**
 * Destroy a probe that is sent again
 */
static void repeat_destroy(repeat_t *data)
{
	data->packet->destroy(data->packet);
	free(data);
}

/**
 * Send a probe again a few times, on a path whose addresses are cloned
 */
static void repeat_on(update_t *update, packet_t *packet, host_t *me,
					  host_t *other)
{
	repeat_t *data;

	INIT(data,
		.number = update->number,
		.packet = packet->clone(packet),
		.delay = FIRST_REPEAT,
	);
	data->packet->set_source(data->packet, me->clone(me));
	data->packet->set_destination(data->packet, other->clone(other));
	lib->scheduler->schedule_job_ms(lib->scheduler,
			(job_t*)callback_job_create((void*)repeat, data,
										(void*)repeat_destroy, NULL),
			FIRST_REPEAT);
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
	if (!rmobike_path_resolve(update->path, ike_sa, &me, &other))
	{
		return update->transmit(mobike, packet);
	}
	DBG1(DBG_IKE, "checking wanted path %#H - %#H", me, other);
	if (!update->probes)
	{
		repeat_on(update, packet, me, other);
	}
	send_on(packet, me, other);
	if (update->probes >= EXCLUSIVE_PROBES)
	{
		me = ike_sa->get_my_host(ike_sa);
		other = ike_sa->get_other_host(ike_sa);
		DBG1(DBG_IKE, "checking current path %#H - %#H", me, other);
		send_on(packet, me->clone(me), other->clone(other));
	}
	if (update->probes >= EXCLUSIVE_PROBES + CURRENT_PROBES)
	{
		/* the addresses that the peer told of: the one in use, where another
		 * node serves its IKE_SA, is not among them */
		update->transmit(mobike, packet);
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
static bool is_unsure(rmobike_path_t *path)
{
	rmobike_peer_t *peer;
	bool unsure = FALSE;

	peer = global.peers->lock_serial(global.peers, path->serial);
	if (peer)
	{
		unsure = peer->unsure;
		global.peers->unlock(global.peers);
	}
	return unsure;
}

/**
 * Check if an IKE_SA is the current one of its peer, the one an update has to
 * be completed on
 *
 * @param told			the peer answered UPDATE_SA_ADDRESSES, no probe
 */
static bool is_current(rmobike_path_t *path, ike_sa_t *ike_sa, bool told)
{
	rmobike_peer_t *peer;
	bool current = TRUE;

	peer = global.peers->lock_serial(global.peers, path->serial);
	if (peer)
	{
		current = peer->id == ike_sa->get_unique_id(ike_sa);
		peer->unsure = !current || (peer->unsure && !told);
		global.peers->unlock(global.peers);
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
static void remember_told(rmobike_path_t *path, ike_sa_t *ike_sa)
{
	host_t *me = ike_sa->get_my_host(ike_sa);
	host_t *other = ike_sa->get_other_host(ike_sa);

	DESTROY_IF(path->told_local);
	DESTROY_IF(path->told_remote);
	path->told_local = me->clone(me);
	path->told_remote = other->clone(other);
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

	if (probing)
	{
		note_answered(update);
	}
	if (probing && is_unsure(update->path))
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
	if (!is_current(update->path, ike_sa, !probing))
	{	/* not over: it gets started anew when the task goes */
		if (!probing)
		{
			remember_told(update->path, ike_sa);
		}
	}
	else
	{
		ended(update->path, ike_sa->get_unique_id(ike_sa), ike_sa,
			  is_there(update->path, ike_sa) ? NULL :
			  is_superseded(ike_sa) ? "superseded" : "no-answer");
	}
	return status;
}

/**
 * Check if an update can be started anew on the IKE_SA that replaced its own,
 * return the reason if not
 */
static char *renew(rmobike_path_t *path)
{
	rmobike_peer_t *peer;

	peer = global.peers->lock_serial(global.peers, path->serial);
	if (!peer)
	{
		return "ike-sa-gone";
	}
	peer->unsure = TRUE;
	global.peers->unlock(global.peers);
	return path->attempts < MAX_ATTEMPTS ? NULL : "ike-sa-replaced";
}

/**
 * Replaces task_t.destroy
 */
static void destroy_task(task_t *task)
{
	update_t *update = update_of(task, TRUE);
	rmobike_path_t *path = update->path;
	char *failure;

	update->destroy(task);
	free(update);
	if (!path->over)
	{
		failure = renew(path);
		if (!failure)
		{
			global.owner->again(global.owner, path);
			return;
		}
		ended(path, path->serial, NULL, failure);
	}
	rmobike_path_destroy(path);
}

/*
 * Described in header
 */
void rmobike_path_update(rmobike_path_t *this, ike_sa_t *ike_sa)
{
	ike_mobike_t *mobike;
	update_t *update;

	mobike = ike_mobike_create(ike_sa, TRUE);
	mobike->roam(mobike, FALSE);
	INIT(update,
		.path = this,
		.unanswered = TRUE,
		.transmit = mobike->transmit,
		.build = mobike->task.build,
		.process = mobike->task.process,
		.migrate = mobike->task.migrate,
		.destroy = mobike->task.destroy,
	);
	mobike->transmit = transmit;
	mobike->task.build = build;
	mobike->task.process = process;
	mobike->task.migrate = migrate;
	mobike->task.destroy = destroy_task;
	this->attempts++;

	global.mutex->lock(global.mutex);
	update->number = ++global.numbers;
	global.updates->put(global.updates, mobike, update);
	global.mutex->unlock(global.mutex);

	rmobike_task_queue(ike_sa, &mobike->task);
}

/*
 * Described in header
 */
void rmobike_path_init(rmobike_peers_t *peers, rmobike_path_owner_t *owner)
{
	global.peers = peers;
	global.owner = owner;
	global.updates = hashtable_create(hashtable_hash_ptr, hashtable_equals_ptr,
									  8);
	global.mutex = mutex_create(MUTEX_TYPE_DEFAULT);
}

/*
 * Described in header
 */
void rmobike_path_deinit()
{
	global.updates->destroy(global.updates);
	global.mutex->destroy(global.mutex);
	memset(&global, 0, sizeof(global));
}
