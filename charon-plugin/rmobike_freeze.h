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
 * @defgroup rmobike_freeze rmobike_freeze
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_FREEZE_H_
#define RMOBIKE_FREEZE_H_

#include <sa/ike_sa.h>

#include "rmobike_control.h"
#include "rmobike_standing.h"

typedef struct rmobike_freeze_t rmobike_freeze_t;

/**
 * IKE_SAs that were served here and are not at the moment.
 *
 * One that is frozen is passive for charon: it starts no exchange and answers
 * none, while ESP is forwarded as before.
 *
 * The ha plugin activates all that is passive when it takes a segment, as it
 * does a moment after charon's start.  What is frozen stays so; and where its
 * peer is on this host, a broker that imports IKE_SAs of other nodes, these
 * stay passive too, as another node serves them.
 *
 * Raises thawed.
 */
struct rmobike_freeze_t {

	/**
	 * Get the standing of a checked out IKE_SA.
	 */
	rmobike_standing_t (*standing)(rmobike_freeze_t *this, ike_sa_t *ike_sa);

	/**
	 * Check if an IKE_SA is frozen for as long as nobody thaws it.
	 */
	bool (*is_lasting)(rmobike_freeze_t *this, ike_sa_t *ike_sa);

	/**
	 * Freeze a checked out, established IKE_SA, or one that is frozen already
	 * for another time.
	 *
	 * @param ms		thaw it by itself after so many ms, 0 for not at all
	 */
	void (*freeze)(rmobike_freeze_t *this, ike_sa_t *ike_sa, uint32_t ms);

	/**
	 * Serve a checked out, frozen IKE_SA again.
	 */
	void (*thaw)(rmobike_freeze_t *this, ike_sa_t *ike_sa);

	/**
	 * Serve a checked out, passive IKE_SA.
	 */
	void (*activate)(rmobike_freeze_t *this, ike_sa_t *ike_sa);

	/**
	 * Handle a change of the state of an IKE_SA, which still has the old one.
	 */
	void (*changes)(rmobike_freeze_t *this, ike_sa_t *ike_sa,
					ike_sa_state_t state);

	/**
	 * Handle the end of an IKE_SA.
	 */
	void (*gone)(rmobike_freeze_t *this, ike_sa_t *ike_sa);

	/**
	 * Destroy an rmobike_freeze_t.
	 */
	void (*destroy)(rmobike_freeze_t *this);
};

/**
 * Create the instance that freezes IKE_SAs; there may be only one.
 */
rmobike_freeze_t *rmobike_freeze_create(rmobike_control_t *control);

#endif /** RMOBIKE_FREEZE_H_ @}*/
