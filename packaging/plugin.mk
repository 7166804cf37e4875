# The charon plugin: targets plugin, plugin-install, plugin-asan. Included by the Makefile.
PLUGIN_SOURCES   := $(wildcard charon-plugin/*.c)
PLUGIN_HEADERS   := $(wildcard charon-plugin/*.h)
PLUGIN_BUILD     := build/plugin
PLUGIN_SO        := $(PLUGIN_BUILD)/libstrongswan-rmobike.so
PLUGIN_ASAN_SO   := $(PLUGIN_BUILD)/asan/libstrongswan-rmobike.so
PLUGIN_DIR       ?= /usr/lib/ipsec/plugins
PLUGIN_VERSION   := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
STRONGSWAN_TREE  ?=

PLUGIN_CPPFLAGS  := -D_GNU_SOURCE -include $(PLUGIN_BUILD)/headers/config.h \
	-isystem $(PLUGIN_BUILD)/headers/src/libstrongswan -isystem $(PLUGIN_BUILD)/headers/src/libcharon \
	-DPLUGINDIR='"$(PLUGIN_DIR)"' -DIPSEC_PIDDIR='"/run"' -DRMOBIKE_VERSION='"$(PLUGIN_VERSION)"'
# since 6.0.2 the constructor of CHILD_SA tasks takes one argument more; expanded once the headers are there
PLUGIN_FEATURES   = $(shell grep -qs 'uint32_t seq' $(PLUGIN_BUILD)/headers/src/libcharon/sa/ikev2/tasks/child_create.h \
	&& echo -DCHILD_CREATE_HAS_SEQ)
# strongSwan's METHOD and CALLBACK macros make the type of "this" of no consequence for aliasing
PLUGIN_CFLAGS    := -std=gnu11 -O2 -g -fPIC -fno-strict-aliasing -fvisibility=default \
	-Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers -Wno-pointer-sign \
	-Wno-sign-compare -Wno-format -Wno-cast-function-type -fstack-protector-strong -fcf-protection
PLUGIN_LDFLAGS   := -shared -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack

.PHONY: plugin plugin-headers plugin-install plugin-asan

plugin: $(PLUGIN_SO) ## build the charon plugin for the installed strongSwan

plugin-headers:
	@charon-plugin/prepare-headers $(PLUGIN_BUILD) $(STRONGSWAN_TREE)

$(PLUGIN_SO): $(PLUGIN_SOURCES) $(PLUGIN_HEADERS) packaging/plugin.mk | plugin-headers
	@echo "== plugin: compile"
	gcc $(PLUGIN_CPPFLAGS) $(PLUGIN_FEATURES) -D_FORTIFY_SOURCE=2 $(PLUGIN_CFLAGS) $(PLUGIN_SOURCES) $(PLUGIN_LDFLAGS) -o $@.new
	mv $@.new $@

plugin-install: plugin ## put the charon plugin where charon finds it
	install -m 0644 $(PLUGIN_SO) $(PLUGIN_DIR)/libstrongswan-rmobike.so

plugin-asan: $(PLUGIN_ASAN_SO) ## build the plugin with AddressSanitizer, for tests

$(PLUGIN_ASAN_SO): $(PLUGIN_SOURCES) $(PLUGIN_HEADERS) packaging/plugin.mk | plugin-headers
	@echo "== plugin: compile with AddressSanitizer"
	mkdir -p $(dir $@)
	gcc $(PLUGIN_CPPFLAGS) $(PLUGIN_FEATURES) $(PLUGIN_CFLAGS) -O1 -fno-omit-frame-pointer -fsanitize=address,undefined \
		$(PLUGIN_SOURCES) $(PLUGIN_LDFLAGS) -o $@.new
	mv $@.new $@
