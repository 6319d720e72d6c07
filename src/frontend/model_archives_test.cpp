#include "frontend/model_archives.h"

#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;

class ModelArchivesTest : public testing::Test {
 protected:
  // An archive of files, by name and content.
  ModelFolder archive(const std::string& name, const std::map<std::string, std::string>& files) {
    const fs::path path = dir_.path() / name;
    const std::unique_ptr<::archive, decltype(&::archive_write_free)> out(::archive_write_new(), &::archive_write_free);
    ::archive_write_set_format_zip(out.get());
    ::archive_write_open_filename(out.get(), path.c_str());
    for (const auto& [file, content] : files) {
      const std::unique_ptr<::archive_entry, decltype(&::archive_entry_free)> header(::archive_entry_new(), &::archive_entry_free);
      ::archive_entry_set_pathname(header.get(), file.c_str());
      ::archive_entry_set_filetype(header.get(), AE_IFREG);
      ::archive_entry_set_mtime(header.get(), 1'000'000'000, 0);
      ::archive_entry_set_size(header.get(), static_cast<la_int64_t>(content.size()));
      ::archive_write_header(out.get(), header.get());
      ::archive_write_data(out.get(), content.data(), content.size());
    }
    ::archive_write_close(out.get());
    return {"m", name, path, path};
  }
  TempDir dir_;
  ModelArchives archives_;
};

TEST_F(ModelArchivesTest, AFolderIsAnsweredAsItIs) {
  const auto model = archives_.open({"m", "u", dir_.path(), dir_.path()}).value();
  EXPECT_EQ(model.folder, dir_.path());
  EXPECT_EQ(model.unpacked, nullptr);
}

TEST_F(ModelArchivesTest, TheSameBytesAreUnpackedOnceWhateverTheirName) {
  const ModelFolder one = archive("one.mar", {{"config.json", "{}"}}), same = archive("same.mar", {{"config.json", "{}"}});
  const ModelFolder other = archive("other.mar", {{"config.json", "[]"}});
  const auto first = archives_.open(one).value(), again = archives_.open(one).value(), copy = archives_.open(same).value();
  const auto different = archives_.open(other).value();
  EXPECT_EQ(read_file(first.folder / "config.json", 10).value(), "{}");
  EXPECT_EQ(first.folder, again.folder);
  EXPECT_EQ(first.folder, copy.folder);
  EXPECT_NE(first.folder, different.folder);
  EXPECT_EQ(first.source, one.source) << "where it comes from stays known";
}

TEST_F(ModelArchivesTest, AFileThatHasChangedIsUnpackedAgain) {
  const auto before = archives_.open(archive("m.mar", {{"config.json", "1"}})).value();
  const auto after = archives_.open(archive("m.mar", {{"config.json", "2"}})).value();
  EXPECT_NE(before.folder, after.folder);
  EXPECT_EQ(read_file(after.folder / "config.json", 10).value(), "2");
  EXPECT_EQ(read_file(before.folder / "config.json", 10).value(), "1") << "who holds the old one keeps it";
}

TEST_F(ModelArchivesTest, TheFolderGoesWithItsLastHolder) {
  auto first = archives_.open(archive("m.mar", {{"config.json", "{}"}})).value();
  const auto second = first;
  const fs::path folder = first.folder;
  first.unpacked.reset();
  EXPECT_TRUE(fs::exists(folder));
  auto last = second;
  const_cast<ModelFolder&>(second).unpacked.reset();
  last.unpacked.reset();
  EXPECT_FALSE(fs::exists(folder));
}

TEST_F(ModelArchivesTest, AModelMayLieInTheOneFolderOfAnArchive) {
  const auto model = archives_.open(archive("m.zip", {{"tiny/config.json", "{}"}, {"tiny/b", "x"}})).value();
  EXPECT_EQ(model.folder.filename(), "tiny");
}

TEST_F(ModelArchivesTest, AnArchiveWithoutAModelIsRefused) {
  const auto two = archives_.open(archive("m.zip", {{"a/config.json", "{}"}, {"b/config.json", "{}"}}));
  ASSERT_FALSE(two);
  EXPECT_THAT(two.error().message(), testing::HasSubstr("m.zip: there is no model in it"));
  write_file_atomic(dir_.path() / "text.mar", "text");
  EXPECT_EQ(archives_.open({"m", "u", dir_.path() / "text.mar", dir_.path() / "text.mar"}).error().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace penstock::frontend
