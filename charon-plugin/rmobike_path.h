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
 * @defgroup rmobike_path rmobike_path
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_PATH_H_
#define RMOBIKE_PATH_H_

#include <sa/ike_sa.h>

#include "rmobike_peers.h"

typedef struct rmobike_path_t rmobike_path_t;
typedef struct rmobike_path_owner_t rmobike_path_owner_t;

/**
 * The path that an update is to lead to.  While its task exists it is accessed only by the thread that has
 * the IKE_SA checked out.
 */
struct rmobike_path_t {

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
	 * Path that the peer was told on the IKE_SA that got rekeyed, or NULL
	 */
	host_t *told_local;
	host_t *told_remote;

	/**
	 * The owner told how it ended
	 */
	bool over;
};

/**
 * Who wants to know how updates end.
 */
struct rmobike_path_owner_t {

	/**
	 * An update ended on the current IKE_SA of its peer, or cannot go on.
	 *
	 * @param path		path of the update
	 * @param id		unique ID of the IKE_SA
	 * @param ike_sa	IKE_SA, NULL if it is gone
	 * @param failure	reason, NULL if the IKE_SA is on the path
	 */
	void (*ended)(rmobike_path_owner_t *this, rmobike_path_t *path,
				  uint32_t id, ike_sa_t *ike_sa, char *failure);

	/**
	 * The IKE_SA of an update got replaced by a rekeying: start it anew.
	 *
	 * @param path		path of the update, gets adopted
	 */
	void (*again)(rmobike_path_owner_t *this, rmobike_path_t *path);
};

/**
 * Destroy a path.
 */
void rmobike_path_destroy(rmobike_path_t *this);

/**
 * Get a path with ports.
 *
 * @return				FALSE if there is no route
 */
bool rmobike_path_resolve(rmobike_path_t *this, ike_sa_t *ike_sa, host_t **me,
						  host_t **other);

/**
 * Update a checked out IKE_SA to a path by charon's own MOBIKE task.
 *
 * @param this			path, gets adopted by the task
 * @param ike_sa		IKE_SA
 */
void rmobike_path_update(rmobike_path_t *this, ike_sa_t *ike_sa);

/**
 * Prepare for updates; the tasks outlive neither the peers nor the owner.
 */
void rmobike_path_init(rmobike_peers_t *peers, rmobike_path_owner_t *owner);

/**
 * Clean up.
 */
void rmobike_path_deinit();

#endif /** RMOBIKE_PATH_H_ @}*/
