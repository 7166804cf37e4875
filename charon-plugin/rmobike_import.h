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
 * IKE_SAs that the HA plugin imports, as long as they have no configuration.
 *
 * @defgroup rmobike_import rmobike_import
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_IMPORT_H_
#define RMOBIKE_IMPORT_H_

#include <sa/ike_sa.h>

/**
 * Given an IKE_SA that changes its state, give it a configuration if it is one
 * that the HA plugin makes of its first message.
 *
 * The second message brings the real one.  In between any job may find the
 * IKE_SA.  There may well be one, if this charon had it before: jobs know
 * IKE_SAs by their SPIs and outlive them.  The one for dead peer detection
 * asks the configuration without looking if there is one, up to strongSwan 6.
 *
 * @param ike_sa		IKE_SA
 * @param state			state it is about to have
 */
void rmobike_import_begins(ike_sa_t *ike_sa, ike_sa_state_t state);

#endif /** RMOBIKE_IMPORT_H_ @}*/
