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


#include "rmobike_ahead.h"

#include <daemon.h>
#include <threading/mutex.h>
#include <collections/hashtable.h>
#include <processing/jobs/process_message_job.h>

#include "rmobike_standing.h"

/**
 * When a request that came at a bad moment is looked at again, in ms: the first
 * time, and how often that is doubled; and how often it is
 */
#define AGAIN 10
#define AGAIN_DOUBLED 7
#define AGAIN_MAX 16

typedef struct private_rmobike_ahead_t private_rmobike_ahead_t;

/**
 * Private data of an rmobike_ahead_t object.
 */
struct private_rmobike_ahead_t {

	/**
	 * Public interface
	 */
	rmobike_ahead_t public;

	/**
	 * By unique ID of the IKE_SA, uintptr_t => allowance_t
	 */
	hashtable_t *allowances;

	/**
	 * Leaf mutex for the above
	 */
	mutex_t *mutex;
};

/**
 * How far a request may be ahead
 */
typedef struct {

	/** message ID that was expected when this was allowed */
	uint32_t expected;

	/** by how much another may be greater */
	uint32_t most;

	/** how often a request was put off */
	u_int again;
} allowance_t;

/**
 * Key of an IKE_SA
 */
static void *key(ike_sa_t *ike_sa)
{
	return (void*)(uintptr_t)ike_sa->get_unique_id(ike_sa);
}

METHOD(rmobike_ahead_t, gone, void,
	private_rmobike_ahead_t *this, ike_sa_t *ike_sa)
{
	allowance_t *allowance;

	this->mutex->lock(this->mutex);
	allowance = this->allowances->remove(this->allowances, key(ike_sa));
	this->mutex->unlock(this->mutex);
	free(allowance);
}

METHOD(rmobike_ahead_t, allow, void,
	private_rmobike_ahead_t *this, ike_sa_t *ike_sa, uint32_t most)
{
	allowance_t *allowance = NULL, *old;

	if (most)
	{
		INIT(allowance,
			.expected = ike_sa->get_message_id(ike_sa, FALSE),
			.most = min(most, RMOBIKE_AHEAD_MAX),
		);
	}
	this->mutex->lock(this->mutex);
	if (allowance)
	{
		old = this->allowances->put(this->allowances, key(ike_sa), allowance);
	}
	else
	{
		old = this->allowances->remove(this->allowances, key(ike_sa));
	}
	this->mutex->unlock(this->mutex);
	free(old);
}

METHOD(rmobike_ahead_t, allowed, uint32_t,
	private_rmobike_ahead_t *this, ike_sa_t *ike_sa)
{
	allowance_t *allowance;
	uint32_t most = 0;

	this->mutex->lock(this->mutex);
	allowance = this->allowances->get(this->allowances, key(ike_sa));
	/* any request that was taken since has changed what is expected */
	if (allowance &&
		allowance->expected == ike_sa->get_message_id(ike_sa, FALSE))
	{
		most = allowance->most;
	}
	this->mutex->unlock(this->mutex);
	return most;
}

/**
 * Check if a received message is a whole request that has to be authenticated
 */
static bool is_protected_request(message_t *message)
{
	if (!message->get_request(message) ||
		/* anything else is never authenticated, or a fragment */
		message->get_first_payload_type(message) != PLV2_ENCRYPTED)
	{
		return FALSE;
	}
	switch (message->get_exchange_type(message))
	{
		case INFORMATIONAL:
		case CREATE_CHILD_SA:
			return TRUE;
		default:
			return FALSE;
	}
}

/**
 * Copy a received message as it came from the network, NULL if it is none
 */
static message_t *copy_received(message_t *message)
{
	host_t *src = message->get_source(message);
	host_t *dst = message->get_destination(message);
	message_t *copy;

	copy = message_create_from_packet(packet_create_from_data(src->clone(src),
					dst->clone(dst),
					chunk_clone(message->get_packet_data(message))));
	if (copy->parse_header(copy) != SUCCESS)
	{
		copy->destroy(copy);
		return NULL;
	}
	return copy;
}

/**
 * Check if a received message is of the peer of an IKE_SA.  The message itself
 * is left as it is, charon parses it later.
 */
static bool is_authentic(ike_sa_t *ike_sa, message_t *message)
{
	message_t *copy = copy_received(message);
	bool good;

	good = copy &&
		   copy->parse_body(copy, ike_sa->get_keymat(ike_sa)) == SUCCESS;
	DESTROY_IF(copy);
	return good;
}

/**
 * Have charon look at a message again in a moment, as if it had come then.  A
 * peer that follows us sends its request before it answers ours.
 */
static void put_off(private_rmobike_ahead_t *this, ike_sa_t *ike_sa,
					message_t *message)
{
	allowance_t *allowance;
	message_t *copy;
	uint32_t ms = 0;

	this->mutex->lock(this->mutex);
	allowance = this->allowances->get(this->allowances, key(ike_sa));
	if (allowance && allowance->again < AGAIN_MAX)
	{
		ms = AGAIN << min(allowance->again, AGAIN_DOUBLED);
		allowance->again++;
	}
	this->mutex->unlock(this->mutex);
	copy = ms ? copy_received(message) : NULL;
	if (copy)
	{
		lib->scheduler->schedule_job_ms(lib->scheduler,
								(job_t*)process_message_job_create(copy), ms);
	}
}

METHOD(rmobike_ahead_t, received, void,
	private_rmobike_ahead_t *this, ike_sa_t *ike_sa, message_t *message)
{
	uint32_t most = allowed(this, ike_sa), expected, mid;

	if (!most || !is_protected_request(message))
	{
		return;
	}
	expected = ike_sa->get_message_id(ike_sa, FALSE);
	mid = message->get_message_id(message);
	if (mid <= expected || mid - expected > most ||
		!is_authentic(ike_sa, message))
	{
		return;
	}
	if (rmobike_standing_busy(ike_sa))
	{	/* setting a message ID ends a request of ours that is under way */
		put_off(this, ike_sa, message);
		return;
	}
	DBG1(DBG_IKE, "request %u of the peer of IKE_SA %s[%u] is authentic and "
		 "%u ahead of %u, which is expected: another node took those before "
		 "it, going on with this one", mid, ike_sa->get_name(ike_sa),
		 ike_sa->get_unique_id(ike_sa), mid - expected, expected);
	gone(this, ike_sa);
	ike_sa->set_message_id(ike_sa, FALSE, mid);
}

METHOD(rmobike_ahead_t, destroy, void,
	private_rmobike_ahead_t *this)
{
	enumerator_t *enumerator;
	allowance_t *allowance;

	enumerator = this->allowances->create_enumerator(this->allowances);
	while (enumerator->enumerate(enumerator, NULL, &allowance))
	{
		free(allowance);
	}
	enumerator->destroy(enumerator);
	this->allowances->destroy(this->allowances);
	this->mutex->destroy(this->mutex);
	free(this);
}

/*
 * Described in header
 */
rmobike_ahead_t *rmobike_ahead_create()
{
	private_rmobike_ahead_t *this;

	INIT(this,
		.public = {
			.allow = _allow,
			.allowed = _allowed,
			.received = _received,
			.gone = _gone,
			.destroy = _destroy,
		},
		.allowances = hashtable_create(hashtable_hash_ptr,
									   hashtable_equals_ptr, 8),
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);

	return &this->public;
}
