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

#include "rmobike_peers.h"

#include <threading/mutex.h>
#include <collections/hashtable.h>

typedef struct private_rmobike_peers_t private_rmobike_peers_t;

/**
 * Private data of an rmobike_peers_t object.
 */
struct private_rmobike_peers_t {

	/**
	 * Public interface
	 */
	rmobike_peers_t public;

	/**
	 * Peers by unique ID, uintptr_t => rmobike_peer_t
	 */
	hashtable_t *by_id;

	/**
	 * Peers by serial, uintptr_t => rmobike_peer_t
	 */
	hashtable_t *by_serial;

	/**
	 * Leaf mutex
	 */
	mutex_t *mutex;
};

/**
 * Key of a number
 */
static void *key(uint32_t number)
{
	return (void*)(uintptr_t)number;
}

/**
 * Destroy a peer
 */
static void peer_destroy(rmobike_peer_t *peer)
{
	DESTROY_IF(peer->pending.target);
	peer->answers->destroy_function(peer->answers,
									(void*)rmobike_notify_destroy);
	free(peer);
}

METHOD(rmobike_peers_t, lock_, rmobike_peer_t*,
	private_rmobike_peers_t *this, uint32_t id, bool create)
{
	rmobike_peer_t *peer;

	this->mutex->lock(this->mutex);
	peer = this->by_id->get(this->by_id, key(id));
	if (!peer && create)
	{
		INIT(peer,
			.serial = id,
			.id = id,
			.refs = 1,
			.bucket.level = -1,
			.answers = linked_list_create(),
		);
		this->by_id->put(this->by_id, key(id), peer);
		this->by_serial->put(this->by_serial, key(id), peer);
	}
	if (!peer)
	{
		this->mutex->unlock(this->mutex);
	}
	return peer;
}

METHOD(rmobike_peers_t, lock_serial, rmobike_peer_t*,
	private_rmobike_peers_t *this, uint32_t serial)
{
	rmobike_peer_t *peer;

	this->mutex->lock(this->mutex);
	peer = this->by_serial->get(this->by_serial, key(serial));
	if (!peer)
	{
		this->mutex->unlock(this->mutex);
	}
	return peer;
}

METHOD(rmobike_peers_t, unlock, void,
	private_rmobike_peers_t *this)
{
	this->mutex->unlock(this->mutex);
}

METHOD(rmobike_peers_t, rekey, void,
	private_rmobike_peers_t *this, uint32_t old, uint32_t new)
{
	rmobike_peer_t *peer;

	this->mutex->lock(this->mutex);
	peer = this->by_id->get(this->by_id, key(old));
	if (peer && !this->by_id->get(this->by_id, key(new)))
	{
		peer->id = new;
		peer->refs++;
		this->by_id->put(this->by_id, key(new), peer);
	}
	this->mutex->unlock(this->mutex);
}

METHOD(rmobike_peers_t, is_settling, bool,
	private_rmobike_peers_t *this, uint32_t serial)
{
	rmobike_peer_t *peer;
	bool settling;

	this->mutex->lock(this->mutex);
	peer = this->by_serial->get(this->by_serial, key(serial));
	settling = peer && peer->refs > 1;
	this->mutex->unlock(this->mutex);
	return settling;
}

/**
 * Let the unique ID of an IKE_SA that ended lead to its successor, in the place
 * of the oldest one that does
 */
static void keep_alias(private_rmobike_peers_t *this, rmobike_peer_t *peer,
					   uint32_t id)
{
	uint32_t *alias = &peer->aliases[peer->ended++ % RMOBIKE_ALIASES];

	if (*alias)
	{
		this->by_id->remove(this->by_id, key(*alias));
	}
	*alias = id;
}

/**
 * Remove a peer whose last IKE_SA ended
 */
static void forget(private_rmobike_peers_t *this, rmobike_peer_t *peer,
				   uint32_t id)
{
	int i;

	this->by_id->remove(this->by_id, key(id));
	for (i = 0; i < RMOBIKE_ALIASES; i++)
	{
		if (peer->aliases[i])
		{
			this->by_id->remove(this->by_id, key(peer->aliases[i]));
		}
	}
	this->by_serial->remove(this->by_serial, key(peer->serial));
	peer_destroy(peer);
}

METHOD(rmobike_peers_t, remove_, bool,
	private_rmobike_peers_t *this, uint32_t id, char token[RMOBIKE_TOKEN_SIZE])
{
	rmobike_peer_t *peer;
	bool pending = FALSE;

	this->mutex->lock(this->mutex);
	peer = this->by_id->get(this->by_id, key(id));
	if (peer && --peer->refs == 0)
	{
		pending = peer->pending.generation != 0;
		if (pending)
		{
			memcpy(token, peer->pending.token, RMOBIKE_TOKEN_SIZE);
		}
		forget(this, peer, id);
	}
	else if (peer)
	{
		keep_alias(this, peer, id);
	}
	this->mutex->unlock(this->mutex);
	return pending;
}

METHOD(rmobike_peers_t, list, u_int,
	private_rmobike_peers_t *this, uint32_t **ids)
{
	enumerator_t *enumerator;
	rmobike_peer_t *peer;
	u_int count = 0;

	this->mutex->lock(this->mutex);
	*ids = malloc(sizeof(uint32_t) *
				  max(1, this->by_serial->get_count(this->by_serial)));
	enumerator = this->by_serial->create_enumerator(this->by_serial);
	while (enumerator->enumerate(enumerator, NULL, &peer))
	{
		(*ids)[count++] = peer->id;
	}
	enumerator->destroy(enumerator);
	this->mutex->unlock(this->mutex);
	return count;
}

METHOD(rmobike_peers_t, destroy, void,
	private_rmobike_peers_t *this)
{
	enumerator_t *enumerator;
	rmobike_peer_t *peer;

	enumerator = this->by_serial->create_enumerator(this->by_serial);
	while (enumerator->enumerate(enumerator, NULL, &peer))
	{
		peer_destroy(peer);
	}
	enumerator->destroy(enumerator);
	this->by_serial->destroy(this->by_serial);
	this->by_id->destroy(this->by_id);
	this->mutex->destroy(this->mutex);
	free(this);
}

/*
 * Described in header
 */
rmobike_peers_t *rmobike_peers_create()
{
	private_rmobike_peers_t *this;

	INIT(this,
		.public = {
			.lock = _lock_,
			.lock_serial = _lock_serial,
			.unlock = _unlock,
			.rekey = _rekey,
			.is_settling = _is_settling,
			.remove = _remove_,
			.list = _list,
			.destroy = _destroy,
		},
		.by_id = hashtable_create(hashtable_hash_ptr, hashtable_equals_ptr, 32),
		.by_serial = hashtable_create(hashtable_hash_ptr, hashtable_equals_ptr,
									  32),
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
	);

	return &this->public;
}
