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

#include "rmobike_freeze.h"

#include <daemon.h>
#include <threading/mutex.h>
#include <collections/hashtable.h>
#include <processing/jobs/callback_job.h>
#include <processing/jobs/delete_ike_sa_job.h>
#include <processing/jobs/rekey_child_sa_job.h>
#include <processing/jobs/rekey_ike_sa_job.h>

/**
 * Generation of a freeze that does not end by itself
 */
#define NO_DEADLINE 1

typedef struct private_rmobike_freeze_t private_rmobike_freeze_t;

/**
 * Private data of an rmobike_freeze_t object.
 */
struct private_rmobike_freeze_t {

	/**
	 * Public interface
	 */
	rmobike_freeze_t public;

	/**
	 * Raises events
	 */
	rmobike_control_t *control;

	/**
	 * Frozen IKE_SAs by unique ID, uintptr_t => uintptr_t generation of the
	 * freeze that has a deadline, NO_DEADLINE for one that has none
	 */
	hashtable_t *frozen;

	/**
	 * Passive IKE_SAs that were imported, by unique ID, uintptr_t => any
	 */
	hashtable_t *imported;

	/**
	 * Nobody but us activates what was imported
	 */
	bool strict;

	/**
	 * Last generation used
	 */
	uintptr_t generation;

	/**
	 * Leaf mutex for the above
	 */
	mutex_t *mutex;
};

/**
 * A freeze that ends by itself
 */
typedef struct {
	uint32_t id;
	uintptr_t generation;
} deadline_t;

/**
 * For jobs; there is only one
 */
static private_rmobike_freeze_t *instance;

/**
 * Key of a number
 */
static void *key(uint32_t number)
{
	return (void*)(uintptr_t)number;
}

/**
 * Get the generation of the freeze of an IKE_SA, 0 if it is not frozen
 */
static uintptr_t freeze_of(private_rmobike_freeze_t *this, ike_sa_t *ike_sa)
{
	uintptr_t generation;

	this->mutex->lock(this->mutex);
	generation = (uintptr_t)this->frozen->get(this->frozen,
									key(ike_sa->get_unique_id(ike_sa)));
	this->mutex->unlock(this->mutex);
	return generation;
}

METHOD(rmobike_freeze_t, standing, rmobike_standing_t,
	private_rmobike_freeze_t *this, ike_sa_t *ike_sa)
{
	switch (ike_sa->get_state(ike_sa))
	{
		case IKE_ESTABLISHED:
		case IKE_REKEYING:
			return STANDING_ACTIVE;
		case IKE_PASSIVE:
			return freeze_of(this, ike_sa) ? STANDING_FROZEN : STANDING_PASSIVE;
		default:
			return STANDING_OTHER;
	}
}

METHOD(rmobike_freeze_t, is_lasting, bool,
	private_rmobike_freeze_t *this, ike_sa_t *ike_sa)
{
	return freeze_of(this, ike_sa) == NO_DEADLINE;
}

/**
 * Raise an event about the end of a freeze
 */
static void raise_thawed(private_rmobike_freeze_t *this, ike_sa_t *ike_sa)
{
	vici_builder_t *builder;

	builder = this->control->builder(this->control);
	rmobike_standing_describe(builder, ike_sa, STANDING_ACTIVE,
							  rmobike_standing_busy(ike_sa));
	this->control->raise(this->control, "thawed", 0, builder);
}

/**
 * Destroy the CHILD_SAs that were kept for late packets: the job that would
 * have done so does nothing to a passive IKE_SA
 */
static void destroy_deleted(ike_sa_t *ike_sa)
{
	enumerator_t *enumerator;
	child_sa_t *child_sa;
	uint32_t spi;

	do
	{
		spi = 0;
		enumerator = ike_sa->create_child_sa_enumerator(ike_sa);
		while (!spi && enumerator->enumerate(enumerator, &child_sa))
		{
			if (child_sa->get_state(child_sa) == CHILD_DELETED)
			{
				spi = child_sa->get_spi(child_sa, TRUE);
			}
		}
		enumerator->destroy(enumerator);
	}
	while (spi && ike_sa->destroy_child_sa(ike_sa, PROTO_ESP, spi) == SUCCESS);
}

/**
 * Do what charon's timers would have done while the IKE_SA was frozen: their
 * jobs do nothing to a passive IKE_SA and do not come again
 */
static void make_up(ike_sa_t *ike_sa)
{
	time_t now = time_monotonic(NULL), at;
	ike_sa_id_t *id = ike_sa->get_id(ike_sa);
	host_t *me = ike_sa->get_my_host(ike_sa);
	enumerator_t *enumerator;
	child_sa_t *child_sa;

	destroy_deleted(ike_sa);
	at = ike_sa->get_statistic(ike_sa, STAT_REAUTH);
	if (at && at <= now)
	{
		lib->processor->queue_job(lib->processor,
								  (job_t*)rekey_ike_sa_job_create(id, TRUE));
	}
	at = ike_sa->get_statistic(ike_sa, STAT_REKEY);
	if (at && at <= now)
	{
		lib->processor->queue_job(lib->processor,
								  (job_t*)rekey_ike_sa_job_create(id, FALSE));
	}
	at = ike_sa->get_statistic(ike_sa, STAT_DELETE);
	if (at && at <= now)
	{
		lib->processor->queue_job(lib->processor,
								  (job_t*)delete_ike_sa_job_create(id, TRUE));
	}
	enumerator = ike_sa->create_child_sa_enumerator(ike_sa);
	while (enumerator->enumerate(enumerator, &child_sa))
	{
		at = child_sa->get_lifetime(child_sa, FALSE);
		if (at && at <= now)
		{
			lib->processor->queue_job(lib->processor,
				(job_t*)rekey_child_sa_job_create(
									child_sa->get_protocol(child_sa),
									child_sa->get_spi(child_sa, TRUE), me));
		}
	}
	enumerator->destroy(enumerator);
}

METHOD(rmobike_freeze_t, thaw, void,
	private_rmobike_freeze_t *this, ike_sa_t *ike_sa)
{
	this->mutex->lock(this->mutex);
	this->frozen->remove(this->frozen, key(ike_sa->get_unique_id(ike_sa)));
	this->mutex->unlock(this->mutex);

	ike_sa->set_state(ike_sa, IKE_ESTABLISHED);
	make_up(ike_sa);
}

/**
 * Job that ends a freeze at its deadline
 */
static job_requeue_t expire(deadline_t *deadline)
{
	private_rmobike_freeze_t *this = instance;
	ike_sa_t *ike_sa;

	ike_sa = charon->ike_sa_manager->checkout_by_id(charon->ike_sa_manager,
													deadline->id);
	if (ike_sa)
	{
		if (ike_sa->get_state(ike_sa) == IKE_PASSIVE &&
			freeze_of(this, ike_sa) == deadline->generation)
		{
			DBG1(DBG_IKE, "nobody took over frozen IKE_SA %s[%u], serving it "
				 "again", ike_sa->get_name(ike_sa), deadline->id);
			thaw(this, ike_sa);
			raise_thawed(this, ike_sa);
		}
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	}
	return JOB_REQUEUE_NONE;
}

/**
 * Note that an IKE_SA is frozen, until a deadline
 *
 * @param ms			0 for no deadline
 */
static void note_frozen(private_rmobike_freeze_t *this, uint32_t id, uint32_t ms)
{
	deadline_t *deadline;
	uintptr_t generation = NO_DEADLINE;

	this->mutex->lock(this->mutex);
	if (ms)
	{
		generation = ++this->generation;
	}
	this->frozen->put(this->frozen, key(id), (void*)generation);
	this->mutex->unlock(this->mutex);
	if (ms)
	{
		INIT(deadline,
			.id = id,
			.generation = generation,
		);
		lib->scheduler->schedule_job_ms(lib->scheduler,
			(job_t*)callback_job_create((void*)expire, deadline, free, NULL),
			ms);
	}
}

METHOD(rmobike_freeze_t, freeze, void,
	private_rmobike_freeze_t *this, ike_sa_t *ike_sa, uint32_t ms)
{
	note_frozen(this, ike_sa->get_unique_id(ike_sa), ms);
	if (ike_sa->get_state(ike_sa) != IKE_PASSIVE)
	{
		ike_sa->set_state(ike_sa, IKE_PASSIVE);
	}
}

METHOD(rmobike_freeze_t, activate, void,
	private_rmobike_freeze_t *this, ike_sa_t *ike_sa)
{
	this->mutex->lock(this->mutex);
	this->imported->remove(this->imported,
						   key(ike_sa->get_unique_id(ike_sa)));
	this->mutex->unlock(this->mutex);

	ike_sa->set_state(ike_sa, IKE_ESTABLISHED);
}

/**
 * Check if an IKE_SA is served by another node, or was frozen
 */
static bool is_foreign(private_rmobike_freeze_t *this, ike_sa_t *ike_sa)
{
	void *id = key(ike_sa->get_unique_id(ike_sa));
	bool foreign;

	this->mutex->lock(this->mutex);
	foreign = this->frozen->get(this->frozen, id) ||
			  this->imported->get(this->imported, id);
	this->mutex->unlock(this->mutex);
	return foreign;
}

/**
 * Job that stops serving an IKE_SA
 */
static job_requeue_t stop_serving(uint32_t *id)
{
	ike_sa_t *ike_sa;

	ike_sa = charon->ike_sa_manager->checkout_by_id(charon->ike_sa_manager,
													*id);
	if (ike_sa)
	{
		if (ike_sa->get_state(ike_sa) == IKE_ESTABLISHED &&
			is_foreign(instance, ike_sa))
		{
			DBG1(DBG_IKE, "IKE_SA %s[%u] is not to be served here, whoever "
				 "activated it", ike_sa->get_name(ike_sa), *id);
			ike_sa->set_state(ike_sa, IKE_PASSIVE);
		}
		charon->ike_sa_manager->checkin(charon->ike_sa_manager, ike_sa);
	}
	return JOB_REQUEUE_NONE;
}

METHOD(rmobike_freeze_t, changes, void,
	private_rmobike_freeze_t *this, ike_sa_t *ike_sa, ike_sa_state_t state)
{
	uint32_t *id;

	if (state == IKE_PASSIVE && this->strict &&
		ike_sa->get_state(ike_sa) == IKE_CONNECTING)
	{
		this->mutex->lock(this->mutex);
		this->imported->put(this->imported,
							key(ike_sa->get_unique_id(ike_sa)), this);
		this->mutex->unlock(this->mutex);
	}
	if (state == IKE_ESTABLISHED && is_foreign(this, ike_sa))
	{
		id = malloc_thing(uint32_t);
		*id = ike_sa->get_unique_id(ike_sa);
		lib->processor->queue_job(lib->processor,
			(job_t*)callback_job_create_with_prio((void*)stop_serving, id, free,
												  NULL, JOB_PRIO_CRITICAL));
	}
}

METHOD(rmobike_freeze_t, gone, void,
	private_rmobike_freeze_t *this, ike_sa_t *ike_sa)
{
	this->mutex->lock(this->mutex);
	this->frozen->remove(this->frozen, key(ike_sa->get_unique_id(ike_sa)));
	this->imported->remove(this->imported,
						   key(ike_sa->get_unique_id(ike_sa)));
	this->mutex->unlock(this->mutex);
}

METHOD(rmobike_freeze_t, destroy, void,
	private_rmobike_freeze_t *this)
{
	instance = NULL;
	this->frozen->destroy(this->frozen);
	this->imported->destroy(this->imported);
	this->mutex->destroy(this->mutex);
	free(this);
}

/**
 * Check if the ha plugin's peer is on this host
 */
static bool has_broker()
{
	host_t *host;
	char *str;
	bool here;

	str = lib->settings->get_str(lib->settings, "%s.plugins.ha.remote", NULL,
								 lib->ns);
	host = str ? host_create_from_string(str, 0) : NULL;
	here = host && host->get_family(host) == AF_INET &&
		   host->get_address(host).ptr[0] == 127;
	DESTROY_IF(host);
	return here;
}

/*
 * Described in header
 */
rmobike_freeze_t *rmobike_freeze_create(rmobike_control_t *control)
{
	private_rmobike_freeze_t *this;

	INIT(this,
		.public = {
			.standing = _standing,
			.is_lasting = _is_lasting,
			.freeze = _freeze,
			.thaw = _thaw,
			.activate = _activate,
			.changes = _changes,
			.gone = _gone,
			.destroy = _destroy,
		},
		.control = control,
		.frozen = hashtable_create(hashtable_hash_ptr, hashtable_equals_ptr,
								   8),
		.imported = hashtable_create(hashtable_hash_ptr, hashtable_equals_ptr,
									 32),
		.strict = has_broker(),
		.generation = NO_DEADLINE,
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);
	control->add_event(control, "thawed");
	instance = this;

	return &this->public;
}
