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
 * @defgroup rmobike_peers rmobike_peers
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_PEERS_H_
#define RMOBIKE_PEERS_H_

#include <library.h>
#include <networking/host.h>
#include <collections/linked_list.h>

#include "rmobike_notify.h"

/** Maximum length of a token, including the terminating zero */
#define RMOBIKE_TOKEN_SIZE 65

/** Unique IDs of ended IKE_SAs that lead to their successor still */
#define RMOBIKE_ALIASES 8

/** How often, and after how many ms each, an exchange is put off while a
 * rekeying is completed */
#define RMOBIKE_SETTLE_TRIES 50
#define RMOBIKE_SETTLE_DELAY 20

typedef struct rmobike_peer_t rmobike_peer_t;
typedef struct rmobike_peers_t rmobike_peers_t;

/**
 * What is known about the peer of an IKE_SA.
 *
 * Survives rekeyings; the unique ID of the rekeyed IKE_SA leads to it too, also
 * after its end.  To be accessed while holding the lock only.
 */
struct rmobike_peer_t {

	/**
	 * Never changes: the unique ID of the first IKE_SA of the series
	 */
	uint32_t serial;

	/**
	 * Unique ID of the current IKE_SA
	 */
	uint32_t id;

	/**
	 * IKE_SAs that share this entry
	 */
	u_int refs;

	/**
	 * Unique IDs of IKE_SAs that ended, the last ones, and how many there were
	 */
	uint32_t aliases[RMOBIKE_ALIASES];
	u_int ended;

	/**
	 * Peer sent 'R' in MOBIKE_SUPPORTED
	 */
	bool peer_r;

	/**
	 * We sent 'R' in MOBIKE_SUPPORTED
	 */
	bool own_r;

	/**
	 * Peer was redirected to us
	 */
	bool redirected;

	/**
	 * IKE_SA is established, i.e. the peer is authenticated
	 */
	bool up;

	/**
	 * We are the original initiator
	 */
	bool initiator;

	/**
	 * Peer supports MOBIKE
	 */
	bool mobike;

	/**
	 * Switch we asked the peer for, as responder; generation 0 for none
	 */
	struct {
		u_int generation;
		char token[RMOBIKE_TOKEN_SIZE];
		host_t *target;
		bool acked;
		timeval_t started;
	} pending;

	/**
	 * Last generation used for a switch
	 */
	u_int generation;

	/**
	 * Generation of the update that was asked for last, as initiator
	 */
	u_int update;

	/**
	 * A rekeying crossed an update of ours: the peer may not know the path
	 * that the new IKE_SA uses here
	 */
	bool unsure;

	/**
	 * Rate limit of accepted switches, as initiator: token bucket
	 */
	struct {
		double level;
		timeval_t filled;
	} bucket;

	/**
	 * Answers to put into the response to the request being processed,
	 * as rmobike_notify_t
	 */
	linked_list_t *answers;
};

/**
 * Table of peers.
 *
 * Its mutex is a leaf: nothing that might take another lock may be called
 * while holding it (no checkout, no bus, no log, no events).
 */
struct rmobike_peers_t {

	/**
	 * Lock the table and look for a peer.
	 *
	 * @param id		unique ID of one of its IKE_SAs
	 * @param create	TRUE to create a new entry if there is none
	 * @return			peer, to be released with unlock(); NULL if not found,
	 *					in which case nothing is locked
	 */
	rmobike_peer_t *(*lock)(rmobike_peers_t *this, uint32_t id, bool create);

	/**
	 * Lock the table and look for a peer by its serial.
	 */
	rmobike_peer_t *(*lock_serial)(rmobike_peers_t *this, uint32_t serial);

	/**
	 * Unlock the table.
	 */
	void (*unlock)(rmobike_peers_t *this);

	/**
	 * Lead another unique ID to the entry of an IKE_SA that got rekeyed.
	 */
	void (*rekey)(rmobike_peers_t *this, uint32_t old, uint32_t new);

	/**
	 * Check if a rekeying of a peer's IKE_SA is not completed: the peer, if it
	 * began, may not have our response yet and so not know the new IKE_SA.
	 *
	 * @param serial	serial of the peer
	 * @return			TRUE while the rekeyed IKE_SA exists
	 */
	bool (*is_settling)(rmobike_peers_t *this, uint32_t serial);

	/**
	 * Forget an IKE_SA.
	 *
	 * @param token		receives the token of a switch that was pending
	 * @return			TRUE if a switch was pending on the removed peer
	 */
	bool (*remove)(rmobike_peers_t *this, uint32_t id,
				   char token[RMOBIKE_TOKEN_SIZE]);

	/**
	 * Get the unique IDs of all current IKE_SAs.
	 *
	 * @param ids		receives an allocated array
	 * @return			number of elements
	 */
	u_int (*list)(rmobike_peers_t *this, uint32_t **ids);

	/**
	 * Destroy the table.
	 */
	void (*destroy)(rmobike_peers_t *this);
};

/**
 * Create a table of peers.
 */
rmobike_peers_t *rmobike_peers_create();

#endif /** RMOBIKE_PEERS_H_ @}*/
