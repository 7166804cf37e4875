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
 * @defgroup rmobike_standing rmobike_standing
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_STANDING_H_
#define RMOBIKE_STANDING_H_

#include <sa/ike_sa.h>
#include <plugins/vici/vici_builder.h>
#include <plugins/vici/vici_message.h>

typedef enum rmobike_standing_t rmobike_standing_t;

/**
 * Who serves an IKE_SA, as far as this node is concerned.
 */
enum rmobike_standing_t {

	/** this node */
	STANDING_ACTIVE,

	/** this node until a moment ago, see rmobike_move */
	STANDING_FROZEN,

	/** another node: it was imported by the ha plugin */
	STANDING_PASSIVE,

	/** nobody yet or any more */
	STANDING_OTHER,
};

/**
 * Get the name of a standing.
 */
char *rmobike_standing_name(rmobike_standing_t standing);

/**
 * Check out the IKE_SA that a request names, by ike-id or by spi-i and spi-r.
 *
 * @param request		request
 * @param wrong			receives if the request names none that can be
 * @return				checked out IKEv2 SA, NULL if there is none
 */
ike_sa_t *rmobike_standing_checkout(vici_message_t *request, bool *wrong);

/**
 * Check if something goes on with an IKE_SA or its CHILD_SAs that has to end
 * first before another node may take it over.
 *
 * @param ike_sa		checked out IKE_SA, active or passive
 * @return				what it is, NULL if it is quiet
 */
char *rmobike_standing_busy(ike_sa_t *ike_sa);

/**
 * Check that the CHILD_SAs of an IKE_SA are those that a request lists by their
 * inbound SPIs in "children", if it does.
 */
bool rmobike_standing_has_children(ike_sa_t *ike_sa, vici_message_t *request);

/**
 * Add what there is to know about an IKE_SA to a message.
 *
 * @param busy			what goes on with it, NULL if it is quiet
 */
void rmobike_standing_describe(vici_builder_t *builder, ike_sa_t *ike_sa,
							   rmobike_standing_t standing, char *busy);

#endif /** RMOBIKE_STANDING_H_ @}*/
