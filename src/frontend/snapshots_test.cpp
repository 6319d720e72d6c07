#include "frontend/snapshots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"
#include "frontend/model_downloads.h"

namespace penstock::frontend {
namespace {

TEST(Snapshots, WhatIsWrittenIsReadBack) {
  const TempDir dir;
  const std::map<std::string, std::string> settings = {
      {"vmargs", "  leading, \\back\\slashes, #marks! = : \ttab \n line\r\f, trailing "}, {"job_queue_size", "7"}, {"workflow_store", ""}};
  write_file_atomic(dir.path() / "x.cfg", properties_text(settings));
  EXPECT_EQ(config::load_server_config(dir.path() / "x.cfg").value().settings, settings);
}

TEST(Snapshots, PasswordsAreLeftOut) { EXPECT_EQ(properties_text({{"keystore_pass", "secret"}, {"keystore", "k"}}), "keystore=k\n"); }

TEST(Snapshots, TheLastOneIsFoundByItsName) {
  const TempDir dir;
  EXPECT_EQ(last_snapshot(dir.path() / "none"), "");
  EXPECT_EQ(last_snapshot(dir.path()), "");
  for (const char* name : {"20260102030405006-startup.cfg", "20260102030405007-snapshot.cfg", "20250102030405006-shutdown.cfg", "99990102030405006-other.cfg",
                           "99990102030405006-startup.cfg.tmp.1", "9999-startup.cfg", "z-startup.cfg"}) {
    write_file_atomic(dir.path() / name, "");
  }
  EXPECT_EQ(last_snapshot(dir.path()), dir.path() / "20260102030405007-snapshot.cfg");
}

TEST(ModelDownloads, KnowsARelativePartInEveryForm) {
  for (const char* url : {"../x", "https://a/../b", "https://a/%2e%2e/b", "https://a/%2E./b", "a..b"}) EXPECT_TRUE(climbs(url)) << url;
  for (const char* url : {"https://a/b.mar", "a.b.c", "%2e", "https://a/%2"}) EXPECT_FALSE(climbs(url)) << url;
}

}  // namespace
}  // namespace penstock::frontend
