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
 * @defgroup rmobike_follow rmobike_follow
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_FOLLOW_H_
#define RMOBIKE_FOLLOW_H_

#include <sa/ike_sa.h>

/**
 * Follow a REDIRECT in an IKE_AUTH response in a way that charon survives.
 *
 * charon 5.9.8 resets the IKE_SA from within the task that authenticates the
 * peer, and then frees that task, which the reset has queued again.  So the
 * notify is taken out of the message, and once the IKE_SA is established, and
 * the gateway authenticated, it is redirected like any established one.
 *
 * @param ike_sa		IKE_SA, as initiator, checked out
 * @param message		decrypted IKE_AUTH response, gets changed
 */
void rmobike_follow_redirect(ike_sa_t *ike_sa, message_t *message);

#endif /** RMOBIKE_FOLLOW_H_ @}*/
