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

#include "rmobike_plugin.h"

#include <daemon.h>

#include "rmobike_ahead.h"
#include "rmobike_control.h"
#include "rmobike_freeze.h"
#include "rmobike_guard.h"
#include "rmobike_initiator.h"
#include "rmobike_listener.h"
#include "rmobike_move.h"
#include "rmobike_peers.h"
#include "rmobike_policy.h"
#include "rmobike_pool.h"
#include "rmobike_redirect.h"
#include "rmobike_responder.h"
#include "rmobike_rules.h"
#include "rmobike_send.h"
#include "rmobike_swap.h"
#include "rmobike_update.h"
#include "rmobike_watch.h"

#ifndef RMOBIKE_VERSION
#define RMOBIKE_VERSION "unknown"
#endif

#define DEFAULT_URI "unix://" IPSEC_PIDDIR "/charon.rmobike"

typedef struct private_rmobike_plugin_t private_rmobike_plugin_t;

/**
 * Private data of an rmobike_plugin_t object.
 */
struct private_rmobike_plugin_t {

	/**
	 * Public interface
	 */
	rmobike_plugin_t public;

	/**
	 * Control socket
	 */
	rmobike_control_t *control;

	/**
	 * Known peers
	 */
	rmobike_peers_t *peers;

	/**
	 * Settings
	 */
	rmobike_policy_t *policy;

	/**
	 * Starts updates
	 */
	rmobike_update_t *update;

	/**
	 * Asks peers to switch
	 */
	rmobike_responder_t *responder;

	/**
	 * Follows switches
	 */
	rmobike_initiator_t *initiator;

	/**
	 * Sends notifies
	 */
	rmobike_send_t *send;

	/**
	 * Reports notifies
	 */
	rmobike_watch_t *watch;

	/**
	 * Adds notifies
	 */
	rmobike_rules_t *rules;

	/**
	 * IKE_SAs that are not served at the moment
	 */
	rmobike_freeze_t *freeze;

	/**
	 * Peers that may be ahead
	 */
	rmobike_ahead_t *ahead;

	/**
	 * Helps to move IKE_SAs to other nodes
	 */
	rmobike_move_t *move;

	/**
	 * Redirects clients
	 */
	rmobike_redirect_t *redirect;

	/**
	 * Gives clients virtual IPs
	 */
	rmobike_pool_t *pool;

	/**
	 * Bus hooks
	 */
	rmobike_listener_t *listener;
};

METHOD(plugin_t, get_name, char*,
	private_rmobike_plugin_t *this)
{
	return "rmobike";
}

CALLBACK(status, vici_message_t*,
	private_rmobike_plugin_t *this, char *name, u_int client,
	vici_message_t *request)
{
	vici_builder_t *builder;
	uint32_t *ids;

	builder = this->control->builder(this->control);
	builder->add_kv(builder, "plugin", "rmobike");
	builder->add_kv(builder, "version", "%s", RMOBIKE_VERSION);
	builder->add_kv(builder, "strongswan", "%s", VERSION);
	builder->add_kv(builder, "peers", "%u",
					this->peers->list(this->peers, &ids));
	free(ids);
	this->policy->describe(this->policy, builder);
	return this->control->done(this->control, builder);
}

/**
 * Close the socket first, so that no command comes when the rest goes
 */
static void clean_up(private_rmobike_plugin_t *this)
{
	DESTROY_IF(this->control);
	DESTROY_IF(this->listener);
	DESTROY_IF(this->pool);
	DESTROY_IF(this->redirect);
	DESTROY_IF(this->move);
	DESTROY_IF(this->ahead);
	DESTROY_IF(this->freeze);
	DESTROY_IF(this->rules);
	DESTROY_IF(this->watch);
	DESTROY_IF(this->send);
	DESTROY_IF(this->initiator);
	DESTROY_IF(this->responder);
	DESTROY_IF(this->update);
	DESTROY_IF(this->policy);
	DESTROY_IF(this->peers);
}

/**
 * Open the socket and create everything
 */
static bool set_up(private_rmobike_plugin_t *this)
{
	this->control = rmobike_control_create(lib->settings->get_str(lib->settings,
						"%s.plugins.rmobike.socket", DEFAULT_URI, lib->ns));
	if (!this->control)
	{
		return FALSE;
	}
	this->peers = rmobike_peers_create();
	this->policy = rmobike_policy_create(this->control);
	if (!this->policy)
	{
		return FALSE;
	}
	this->update = rmobike_update_create(this->control, this->peers);
	this->responder = rmobike_responder_create(this->control, this->peers,
											   this->policy);
	this->initiator = rmobike_initiator_create(this->control, this->peers,
											   this->policy, this->update);
	this->send = rmobike_send_create(this->control, this->peers);
	this->watch = rmobike_watch_create(this->control);
	this->rules = rmobike_rules_create(this->control, this->peers);
	this->freeze = rmobike_freeze_create(this->control);
	this->ahead = rmobike_ahead_create();
	this->move = rmobike_move_create(this->control, this->peers, this->freeze,
										 this->ahead);
	this->redirect = rmobike_redirect_create(this->control, this->peers);
	this->pool = rmobike_pool_create(this->control, this->peers);
	this->listener = rmobike_listener_create(this->control, this->peers,
							this->policy, this->responder, this->initiator,
							this->watch, this->rules, this->freeze,
							this->ahead);
	this->control->add_command(this->control, "status", status, this);
	return TRUE;
}

/**
 * Register/unregister with charon
 */
static bool plugin_cb(private_rmobike_plugin_t *this,
					  plugin_feature_t *feature, bool reg, void *cb_data)
{
	if (reg)
	{
		if (!rmobike_guard_check() || !set_up(this))
		{
			clean_up(this);
			return FALSE;
		}
		charon->redirect->add_provider(charon->redirect,
									   &this->redirect->provider);
		charon->attributes->add_provider(charon->attributes,
										 &this->pool->provider);
		rmobike_swap_init();
		charon->bus->add_listener(charon->bus, &this->listener->listener);
		DBG1(DBG_CFG, "rmobike %s loaded", RMOBIKE_VERSION);
	}
	else
	{
		charon->bus->remove_listener(charon->bus, &this->listener->listener);
		rmobike_swap_deinit();
		charon->attributes->remove_provider(charon->attributes,
											&this->pool->provider);
		charon->redirect->remove_provider(charon->redirect,
										  &this->redirect->provider);
		clean_up(this);
	}
	return TRUE;
}

METHOD(plugin_t, get_features, int,
	private_rmobike_plugin_t *this, plugin_feature_t *features[])
{
	static plugin_feature_t f[] = {
		PLUGIN_CALLBACK((plugin_feature_callback_t)plugin_cb, NULL),
			PLUGIN_PROVIDE(CUSTOM, "rmobike"),
				PLUGIN_DEPENDS(CUSTOM, "libcharon-sa-managers"),
				PLUGIN_SDEPEND(CUSTOM, "vici"),
	};
	*features = f;
	return countof(f);
}

METHOD(plugin_t, destroy, void,
	private_rmobike_plugin_t *this)
{
	free(this);
}

#ifdef PLUGIN_DEFINE
/* since 6.0.3 */
PLUGIN_DEFINE(rmobike)
#else
plugin_t *rmobike_plugin_create();

/**
 * Plugin constructor
 */
plugin_t *rmobike_plugin_create()
#endif
{
	private_rmobike_plugin_t *this;

	INIT(this,
		.public = {
			.plugin = {
				.get_name = _get_name,
				.get_features = _get_features,
				.destroy = _destroy,
			},
		},
	);

	return &this->public.plugin;
}
