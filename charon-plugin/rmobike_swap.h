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
 * Changes the addresses of CHILD_SAs without a gap in what they carry.
 *
 * charon itself puts a policy in place that drops everything, removes its
 * policies, then deletes and adds one SA after the other, and so on.  Here its
 * calls of the kernel interface are replaced while it does so:  what belongs
 * together is changed by the kernel in one go, and policies are added before
 * others are removed.  Where anything is not as expected, charon's own calls
 * are carried out as they were made, in their order.
 *
 * @defgroup rmobike_swap rmobike_swap
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_SWAP_H_
#define RMOBIKE_SWAP_H_

#include <sa/ike_sa.h>

/**
 * Note that a CHILD_SA changes its state.
 *
 * @param child_sa		CHILD_SA
 * @param state			its new state
 */
void rmobike_swap_state(child_sa_t *child_sa, child_sa_state_t state);

/**
 * Note an authenticated request.  If it came to another address than the one in
 * use, the peer may be about to use that:  inbound SAs are there already.
 *
 * @param ike_sa		IKE_SA, checked out
 * @param message		decrypted request
 */
void rmobike_swap_request(ike_sa_t *ike_sa, message_t *message);

/**
 * Replace charon's calls, unless the settings say no or the kernel's IPsec is
 * not used.
 */
void rmobike_swap_init();

/**
 * Undo that.
 */
void rmobike_swap_deinit();

#endif /** RMOBIKE_SWAP_H_ @}*/
