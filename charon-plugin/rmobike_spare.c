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


#include "rmobike_spare.h"

#include <daemon.h>
#include <threading/mutex.h>
#include <collections/hashtable.h>
#include <processing/jobs/callback_job.h>

#include "rmobike_xfrm.h"

/**
 * How long a copy waits for the peer to come, in ms: a round trip, and what
 * charon needs to answer
 */
#define OPEN_TIME 3000

/**
 * How long a copy waits for what is still under way to where the SA was, in ms
 */
#define LINGER_TIME 1000

/**
 * A copy in the kernel
 */
typedef struct {

	/** identifies it, addresses are our own */
	kernel_ipsec_sa_id_t id;

	/** it was the SA before, and what it counted is counted there */
	bool counted;

	/** number of its own, to remove no other one */
	u_int number;
} spare_t;

/**
 * A copy to remove
 */
typedef struct {

	/** SPI */
	uint32_t spi;

	/** number of the copy */
	u_int number;
} expiry_t;

/**
 * There is only one kernel
 */
static struct {

	/**
	 * Copies by SPI, uintptr_t => spare_t
	 */
	hashtable_t *spares;

	/**
	 * Last number used
	 */
	u_int numbers;

	/**
	 * Leaf mutex for the above, held while the kernel is asked to change any
	 */
	mutex_t *mutex;
} global;

/**
 * Clone what identifies an SA
 */
static void clone_id(kernel_ipsec_sa_id_t *id, kernel_ipsec_sa_id_t *from,
					 host_t *dst)
{
	*id = *from;
	id->src = from->src->clone(from->src);
	id->dst = dst->clone(dst);
}

/**
 * Destroy a clone
 */
static void clear_id(kernel_ipsec_sa_id_t *id)
{
	id->src->destroy(id->src);
	id->dst->destroy(id->dst);
}

/**
 * Get a copy; locked
 */
static spare_t *get_spare(uint32_t spi)
{
	return global.spares->get(global.spares, (void*)(uintptr_t)spi);
}

/**
 * Forget a copy; locked
 */
static void forget(uint32_t spi)
{
	spare_t *spare;

	spare = global.spares->remove(global.spares, (void*)(uintptr_t)spi);
	if (spare)
	{
		clear_id(&spare->id);
		free(spare);
	}
}

/**
 * Remove a copy from the kernel; locked
 */
static void remove_spare(spare_t *spare)
{
	rmobike_xfrm_t *xfrm = rmobike_xfrm_create();

	if (xfrm)
	{
		xfrm->add(xfrm, rmobike_xfrm_del_sa(&spare->id));
		xfrm->run(xfrm);
		xfrm->destroy(xfrm);
	}
	forget(spare->id.spi);
}

/**
 * Job that removes a copy
 */
static job_requeue_t expire(expiry_t *expiry)
{
	spare_t *spare;

	global.mutex->lock(global.mutex);
	spare = get_spare(expiry->spi);
	if (spare && spare->number == expiry->number)
	{
		remove_spare(spare);
	}
	global.mutex->unlock(global.mutex);
	return JOB_REQUEUE_NONE;
}

/**
 * Remember a copy that the kernel has; locked
 */
static void remember(kernel_ipsec_sa_id_t *id, host_t *dst, bool counted,
					 u_int duration)
{
	expiry_t *expiry;
	spare_t *spare;

	spare = get_spare(id->spi);
	if (spare && !spare->id.dst->ip_equals(spare->id.dst, dst))
	{
		remove_spare(spare);
	}
	forget(id->spi);
	INIT(spare,
		.counted = counted,
		.number = ++global.numbers,
	);
	clone_id(&spare->id, id, dst);
	global.spares->put(global.spares, (void*)(uintptr_t)id->spi, spare);
	INIT(expiry,
		.spi = id->spi,
		.number = spare->number,
	);
	lib->scheduler->schedule_job_ms(lib->scheduler,
			(job_t*)callback_job_create((void*)expire, expiry, free, NULL),
			duration);
}

/**
 * Make a copy of an SA; locked
 */
static void make_copy(rmobike_xfrm_t *xfrm, kernel_ipsec_sa_id_t *id,
					  host_t *dst, bool encap)
{
	kernel_ipsec_sa_id_t spare = *id;
	bool again = rmobike_spare_is_at(id->spi, dst);
	chunk_t copy;
	u_int number;

	spare.dst = dst;
	xfrm->add(xfrm, rmobike_xfrm_get_sa(id));
	if (again)
	{
		xfrm->add(xfrm, rmobike_xfrm_get_sa(&spare));
	}
	if (!xfrm->run(xfrm) ||
		!rmobike_xfrm_is_plain(xfrm->get_reply(xfrm, 0), encap))
	{
		return;
	}
	copy = rmobike_xfrm_copy_sa(xfrm->get_reply(xfrm, 0), id->src, dst);
	rmobike_xfrm_reset_usage(copy);
	if (again)
	{
		rmobike_spare_merge(id->spi, copy, xfrm->get_reply(xfrm, 1));
	}
	xfrm->reset(xfrm);
	if (again)
	{
		xfrm->add(xfrm, rmobike_xfrm_del_sa(&spare));
	}
	number = xfrm->add(xfrm, copy);
	xfrm->run(xfrm);
	if (xfrm->is_done(xfrm, number))
	{
		remember(id, dst, FALSE, OPEN_TIME);
	}
}

/*
 * Described in header
 */
void rmobike_spare_open(kernel_ipsec_sa_id_t *id, host_t *dst, bool encap)
{
	rmobike_xfrm_t *xfrm = rmobike_xfrm_create();

	if (xfrm)
	{
		global.mutex->lock(global.mutex);
		make_copy(xfrm, id, dst, encap);
		global.mutex->unlock(global.mutex);
		xfrm->destroy(xfrm);
	}
}

/*
 * Described in header
 */
void rmobike_spare_close(uint32_t spi, host_t *dst)
{
	spare_t *spare;

	global.mutex->lock(global.mutex);
	spare = get_spare(spi);
	if (spare && (!dst || dst->ip_equals(dst, spare->id.dst)))
	{
		remove_spare(spare);
	}
	global.mutex->unlock(global.mutex);
}

/*
 * Described in header
 */
void rmobike_spare_lock()
{
	global.mutex->lock(global.mutex);
}

/*
 * Described in header
 */
void rmobike_spare_unlock()
{
	global.mutex->unlock(global.mutex);
}

/*
 * Described in header
 */
bool rmobike_spare_is_at(uint32_t spi, host_t *dst)
{
	spare_t *spare = get_spare(spi);

	return spare && dst->ip_equals(dst, spare->id.dst);
}

/*
 * Described in header
 */
void rmobike_spare_merge(uint32_t spi, chunk_t copy, chunk_t other)
{
	spare_t *spare = get_spare(spi);

	rmobike_xfrm_merge(copy, other);
	if (!spare->counted)
	{
		rmobike_xfrm_add_usage(copy, other);
	}
}

/*
 * Described in header
 */
void rmobike_spare_swapped(kernel_ipsec_sa_id_t *id, host_t *dst)
{
	if (rmobike_spare_is_at(id->spi, dst))
	{
		forget(id->spi);
	}
	remember(id, id->dst, TRUE, LINGER_TIME);
}

/*
 * Described in header
 */
void rmobike_spare_init()
{
	global.spares = hashtable_create(hashtable_hash_ptr, hashtable_equals_ptr,
									 32);
	global.mutex = mutex_create(MUTEX_TYPE_DEFAULT);
}

/*
 * Described in header
 */
void rmobike_spare_deinit()
{
	enumerator_t *enumerator;
	spare_t *spare;

	/* removing changes the table */
	while (global.spares->get_count(global.spares))
	{
		enumerator = global.spares->create_enumerator(global.spares);
		if (!enumerator->enumerate(enumerator, NULL, &spare))
		{
			spare = NULL;
		}
		enumerator->destroy(enumerator);
		if (!spare)
		{
			break;
		}
		remove_spare(spare);
	}
	global.spares->destroy(global.spares);
	global.mutex->destroy(global.mutex);
	memset(&global, 0, sizeof(global));
}
