#include "config/python_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::config {
namespace {

TEST(PythonSettings, AreThoseOfTheFile) {
  TempDir folder;
  const auto load = [&](const std::string& text) {
    write_file_atomic(folder.path() / "config.properties", text);
    return load_server_config(folder.path() / "config.properties", fixed_environment({})).value();
  };
  const PythonSettings defaults = python_settings(load(""));
  EXPECT_TRUE(defaults.decode_input_request && defaults.limit_max_image_pixels);
  EXPECT_EQ(defaults.service_envelope, "");
  const ServerConfig config = load("decode_input_request=False\nlimit_max_image_pixels=false\nservice_envelope=json\n");
  EXPECT_TRUE(config.notes.empty()) << config.notes[0];
  const PythonSettings given = python_settings(config);
  EXPECT_FALSE(given.decode_input_request || given.limit_max_image_pixels);
  EXPECT_EQ(given.service_envelope, "json");
}

}  // namespace
}  // namespace penstock::config
