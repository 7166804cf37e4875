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
 * @defgroup rmobike_guard rmobike_guard
 * @{ @ingroup rmobike
 */

#ifndef RMOBIKE_GUARD_H_
#define RMOBIKE_GUARD_H_

#include <library.h>

/**
 * Check that the running libcharon has the layout this plugin was built for.
 *
 * Logs what does not match.  Has to be called once the SA managers exist.
 *
 * @return				TRUE if the plugin may touch charon's objects
 */
bool rmobike_guard_check();

/**
 * Check that a table of methods has the size its header says.
 *
 * Every word of the table has to point into the object that also contains
 * a given symbol, and the word behind the table must not.
 *
 * @param name			what is checked, for the log
 * @param table			first method
 * @param size			size of the table as known at compile time
 * @param symbol		symbol of the object the methods are expected in
 * @return				TRUE if the table matches
 */
bool rmobike_guard_table(char *name, void *table, size_t size, void *symbol);

#endif /** RMOBIKE_GUARD_H_ @}*/
