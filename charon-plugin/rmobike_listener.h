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
 * @defgroup rmobike_listener rmobike_listener
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_LISTENER_H_
#define RMOBIKE_LISTENER_H_

#include <bus/listeners/listener.h>

#include "rmobike_ahead.h"
#include "rmobike_control.h"
#include "rmobike_freeze.h"
#include "rmobike_initiator.h"
#include "rmobike_peers.h"
#include "rmobike_policy.h"
#include "rmobike_responder.h"
#include "rmobike_rules.h"
#include "rmobike_watch.h"

typedef struct rmobike_listener_t rmobike_listener_t;

/**
 * Bus hooks: announces and remembers 'R', follows IKE_SAs through rekeyings,
 * and hands messages on.  No hook ever blocks.
 */
struct rmobike_listener_t {

	/**
	 * Implements listener interface.
	 */
	listener_t listener;

	/**
	 * Destroy an rmobike_listener_t.
	 */
	void (*destroy)(rmobike_listener_t *this);
};

/**
 * Create the listener.
 */
rmobike_listener_t *rmobike_listener_create(rmobike_control_t *control,
							rmobike_peers_t *peers, rmobike_policy_t *policy,
							rmobike_responder_t *responder,
							rmobike_initiator_t *initiator,
							rmobike_watch_t *watch, rmobike_rules_t *rules,
							rmobike_freeze_t *freeze, rmobike_ahead_t *ahead);

#endif /** RMOBIKE_LISTENER_H_ @}*/
