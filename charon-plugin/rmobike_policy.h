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
 * @defgroup rmobike_policy rmobike_policy
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_POLICY_H_
#define RMOBIKE_POLICY_H_

#include <library.h>
#include <networking/host.h>
#include <encoding/payloads/notify_payload.h>

#include "rmobike_control.h"

typedef struct rmobike_policy_t rmobike_policy_t;

/**
 * Settings: from strongswan.conf at first, later from the command set-policy.
 */
struct rmobike_policy_t {

	/**
	 * Get the number of the SWITCH_TO_IP_ADDRESS notify.
	 */
	notify_type_t (*get_notify_type)(rmobike_policy_t *this);

	/**
	 * Check if 'R' is to be announced when initiating.
	 */
	bool (*announces)(rmobike_policy_t *this);

	/**
	 * Check if an address may be switched to.
	 *
	 * @param target	address asked for
	 * @param known		TRUE if the peer told us about this address before
	 */
	bool (*accepts)(rmobike_policy_t *this, host_t *target, bool known);

	/**
	 * Take one from a token bucket, fill it before.
	 *
	 * @param level		level of the bucket, negative for a new one
	 * @param filled	when it was filled
	 * @return			FALSE if the bucket is empty
	 */
	bool (*take)(rmobike_policy_t *this, double *level, timeval_t *filled);

	/**
	 * Add the settings to a message.
	 */
	void (*describe)(rmobike_policy_t *this, vici_builder_t *builder);

	/**
	 * Destroy an rmobike_policy_t.
	 */
	void (*destroy)(rmobike_policy_t *this);
};

/**
 * Create the policy.
 *
 * @param control		to register the command set-policy
 * @return				policy, NULL (and logged) if the settings are invalid
 */
rmobike_policy_t *rmobike_policy_create(rmobike_control_t *control);

#endif /** RMOBIKE_POLICY_H_ @}*/
