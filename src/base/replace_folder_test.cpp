#include "base/replace_folder.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

TEST(ReplaceFolder, TakesTheNameWhateverHadIt) {
  TempDir dir;
  const fs::path from = dir.path() / "from", to = dir.path() / "to";
  const auto replace = [&] {
    fs::create_directory(from);
    write_file_atomic(from / "new", "x");
    replace_folder(from, to);
    EXPECT_TRUE(fs::exists(to / "new"));
    EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1) << "nothing else is left";
  };
  replace();
  fs::rename(to / "new", to / "old");
  replace();
  EXPECT_FALSE(fs::exists(to / "old"));
  fs::remove_all(to);
  write_file_atomic(to, "a file");
  replace();
}

TEST(ReplaceFolder, SaysWhatItCannotReplace) {
  TempDir dir;
  try {
    replace_folder(dir.path() / "none", dir.path() / "to");
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kDataLoss);
    EXPECT_NE(e.message().find("/to: No such file"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace penstock
