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

#include "rmobike_control.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <link.h>

#include <daemon.h>

#include "rmobike_guard.h"

#define VICI_OBJECT "/libstrongswan-vici.so"

typedef struct private_rmobike_control_t private_rmobike_control_t;

/**
 * Private data of an rmobike_control_t object.
 */
struct private_rmobike_control_t {

	/**
	 * Public interface
	 */
	rmobike_control_t public;

	/**
	 * Reference to the vici plugin's object
	 */
	void *handle;

	/**
	 * Exported constructors of the vici plugin
	 */
	vici_dispatcher_t *(*create_dispatcher)(char *uri);
	vici_builder_t *(*create_builder)();

	/**
	 * Dispatcher of our own socket
	 */
	vici_dispatcher_t *dispatcher;

	/**
	 * Names of registered commands, char*
	 */
	linked_list_t *commands;

	/**
	 * Names of registered events, char*
	 */
	linked_list_t *events;
};

/*
 * Described in header
 */
bool rmobike_is_unicast(host_t *host)
{
	chunk_t address = host->get_address(host);

	return !host->is_anyaddr(host) &&
		   !(address.len == 4 && address.ptr[0] >= 224) &&
		   !(address.len == 16 && address.ptr[0] == 0xff);
}

/*
 * Described in header
 */
bool rmobike_is_local(host_t *host)
{
	return charon->kernel->get_interface(charon->kernel, host, NULL);
}

/*
 * Described in header
 */
host_t *rmobike_parse_address(char *str)
{
	host_t *host;

	host = str ? host_create_from_string(str, 0) : NULL;
	if (host && !rmobike_is_unicast(host))
	{
		host->destroy(host);
		host = NULL;
	}
	return host;
}

/*
 * Described in header
 */
traffic_selector_t *rmobike_parse_network(char *str)
{
	char address[64], *slash;
	uint32_t bits;
	host_t *host;
	int family;

	/* the parser of libstrongswan is content with prefixes of any length */
	if (snprintf(address, sizeof(address), "%s", str) >= sizeof(address))
	{
		return NULL;
	}
	slash = strchr(address, '/');
	if (slash)
	{
		*slash++ = '\0';
	}
	host = host_create_from_string(address, 0);
	if (!host)
	{
		return NULL;
	}
	family = host->get_family(host);
	host->destroy(host);
	if (slash && !rmobike_parse_number(slash, 0, family == AF_INET ? 32 : 128,
									   &bits))
	{
		return NULL;
	}
	return traffic_selector_create_from_cidr(str, 0, 0, 65535);
}

/*
 * Described in header
 */
bool rmobike_parse_token(char *str, char token[RMOBIKE_TOKEN_SIZE])
{
	size_t i;

	memset(token, 0, RMOBIKE_TOKEN_SIZE);
	for (i = 0; str && str[i]; i++)
	{
		if (i >= RMOBIKE_TOKEN_SIZE - 1 ||
			!(isalnum((u_char)str[i]) || strchr("._:/-", str[i])))
		{
			return FALSE;
		}
		token[i] = str[i];
	}
	return TRUE;
}

/*
 * Described in header
 */
bool rmobike_parse_number(char *str, uint32_t min, uint32_t max,
						  uint32_t *number)
{
	unsigned long long value;
	char *end;

	if (!str || !isdigit((u_char)*str))
	{
		return FALSE;
	}
	errno = 0;
	value = strtoull(str, &end, 10);
	if (errno || *end || value < min || value > max)
	{
		return FALSE;
	}
	*number = value;
	return TRUE;
}

METHOD(rmobike_control_t, add_command, void,
	private_rmobike_control_t *this, char *name, vici_command_cb_t cb,
	void *user)
{
	this->commands->insert_last(this->commands, name);
	this->dispatcher->manage_command(this->dispatcher, name, cb, user);
}

METHOD(rmobike_control_t, add_event, void,
	private_rmobike_control_t *this, char *name)
{
	this->events->insert_last(this->events, name);
	this->dispatcher->manage_event(this->dispatcher, name, TRUE);
}

METHOD(rmobike_control_t, builder, vici_builder_t*,
	private_rmobike_control_t *this)
{
	return this->create_builder();
}

METHOD(rmobike_control_t, event, vici_builder_t*,
	private_rmobike_control_t *this, uint32_t id)
{
	vici_builder_t *builder;

	builder = this->create_builder();
	builder->add_kv(builder, "ike-id", "%u", id);
	return builder;
}

METHOD(rmobike_control_t, raise_, void,
	private_rmobike_control_t *this, char *name, u_int client,
	vici_builder_t *builder)
{
	this->dispatcher->raise_event(this->dispatcher, name, client,
								  builder->finalize(builder));
}

METHOD(rmobike_control_t, done, vici_message_t*,
	private_rmobike_control_t *this, vici_builder_t *builder)
{
	builder = builder ?: this->create_builder();
	builder->add_kv(builder, "success", "yes");
	return builder->finalize(builder);
}

METHOD(rmobike_control_t, refuse, vici_message_t*,
	private_rmobike_control_t *this, char *code, char *fmt, ...)
{
	vici_builder_t *builder;
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	builder = this->create_builder();
	builder->add_kv(builder, "success", "no");
	builder->add_kv(builder, "code", "%s", code);
	builder->add_kv(builder, "errmsg", "%s: %s", code, text);
	return builder->finalize(builder);
}

METHOD(rmobike_control_t, destroy, void,
	private_rmobike_control_t *this)
{
	char *name;

	if (this->dispatcher)
	{
		while (this->commands->remove_first(this->commands,
											(void**)&name) == SUCCESS)
		{
			this->dispatcher->manage_command(this->dispatcher, name, NULL,
											 NULL);
		}
		while (this->events->remove_first(this->events,
										  (void**)&name) == SUCCESS)
		{
			this->dispatcher->manage_event(this->dispatcher, name, FALSE);
		}
		this->dispatcher->destroy(this->dispatcher);
	}
	this->commands->destroy(this->commands);
	this->events->destroy(this->events);
	if (this->handle)
	{
		dlclose(this->handle);
	}
	free(this);
}

/**
 * Find the loaded object of the vici plugin
 */
static int find_vici(struct dl_phdr_info *info, size_t size, void *data)
{
	size_t len = strlen(info->dlpi_name), tail = strlen(VICI_OBJECT);

	if (len >= tail && streq(info->dlpi_name + len - tail, VICI_OBJECT))
	{
		*(char**)data = strdup(info->dlpi_name);
		return 1;
	}
	return 0;
}

/**
 * Get the vici plugin's constructors
 */
static bool open_vici(private_rmobike_control_t *this)
{
	char *path = NULL;

	dl_iterate_phdr(find_vici, &path);
	this->handle = dlopen(path ?: PLUGINDIR VICI_OBJECT, RTLD_NOW);
	free(path);
	if (!this->handle)
	{
		DBG1(DBG_CFG, "rmobike: the vici plugin is needed: %s", dlerror());
		return FALSE;
	}
	this->create_dispatcher = dlsym(this->handle, "vici_dispatcher_create");
	this->create_builder = dlsym(this->handle, "vici_builder_create");
	if (!this->create_dispatcher || !this->create_builder)
	{
		DBG1(DBG_CFG, "rmobike: the vici plugin here does not export what is "
			 "needed");
		return FALSE;
	}
	return TRUE;
}

/**
 * Check the layout of vici's objects
 */
static bool check_vici(private_rmobike_control_t *this)
{
	vici_builder_t *builder;
	bool good;

	builder = this->create_builder();
	good = rmobike_guard_table("vici_builder_t", builder, sizeof(*builder),
							   this->create_builder);
	if (good)
	{
		builder->destroy(builder);
	}
	return good && rmobike_guard_table("vici_dispatcher_t", this->dispatcher,
							sizeof(*this->dispatcher), this->create_builder);
}

/*
 * Described in header
 */
rmobike_control_t *rmobike_control_create(char *uri)
{
	private_rmobike_control_t *this;

	INIT(this,
		.public = {
			.add_command = _add_command,
			.add_event = _add_event,
			.builder = _builder,
			.event = _event,
			.raise = _raise_,
			.done = _done,
			.refuse = _refuse,
			.destroy = _destroy,
		},
		.commands = linked_list_create(),
		.events = linked_list_create(),
	);

	if (!open_vici(this))
	{
		destroy(this);
		return NULL;
	}
	this->dispatcher = this->create_dispatcher(uri);
	if (!this->dispatcher)
	{
		DBG1(DBG_CFG, "rmobike: cannot open the control socket '%s'", uri);
		destroy(this);
		return NULL;
	}
	if (!check_vici(this))
	{
		destroy(this);
		return NULL;
	}
	return &this->public;
}
